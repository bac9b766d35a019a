"""Recognising files of other programs and making models of them."""
