"""The finished videos: what lists, searches and users' marks need of them."""
