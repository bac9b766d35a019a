"""Health, statistics, and components of this server."""
