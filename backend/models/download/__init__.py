"""Bringing model files here: from the hub, or from what other programs already have."""
