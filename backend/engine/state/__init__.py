"""Saves a job and restores it."""
