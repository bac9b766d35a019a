"""Clips and pictures that were made elsewhere: read by a confined process, interpreted, and imported."""
