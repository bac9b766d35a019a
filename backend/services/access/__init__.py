"""Recognises who calls, and holds each key to its limits."""
