"""Model availability, fallback, cleanup, and the background re-check of files."""
