"""Submitting, the queue, and the gallery."""
