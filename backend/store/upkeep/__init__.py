"""Upkeep of the database: copies, recovery from damage and loss, deletion of what has become old."""
