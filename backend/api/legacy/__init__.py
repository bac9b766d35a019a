"""Paths and shapes for clients of the earlier application."""
