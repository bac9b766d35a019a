"""Model files on disk: what is here and what is missing. Knows nothing of torch, HTTP or tasks."""
