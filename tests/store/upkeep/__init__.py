"""Upkeep of the database."""
