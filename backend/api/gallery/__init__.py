"""The gallery routes: lists by filters, videos and their files, trash, favourites, tags and boards."""
