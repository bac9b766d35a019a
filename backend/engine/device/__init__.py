"""Chooses the device, its attention kernel and its precision."""
