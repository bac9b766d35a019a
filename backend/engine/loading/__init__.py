"""Turns weight files into the components of a pipeline."""
