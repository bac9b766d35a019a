"""Reads images and writes videos."""
