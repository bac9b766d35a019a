"""Held-out cases, scores, and the cards and contact sheets that report them."""
