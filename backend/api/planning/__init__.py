"""Estimates, optimization settings, and resource limits."""
