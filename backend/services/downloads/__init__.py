"""Model downloads: orders, state, and pause, resume, cancel."""
