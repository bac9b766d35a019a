"""The web process as a whole: its components, their health, and host statistics."""
