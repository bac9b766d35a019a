"""Turns latents into frames: decoding, tiles, previews, and the check for black clips."""
