"""Downloads from the hub; reuses files that are already on disk."""
