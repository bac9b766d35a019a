"""From latents to frames: decoding, tiles, previews, and the check that a clip is not black."""
