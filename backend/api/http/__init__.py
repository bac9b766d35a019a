"""Shared HTTP layer: dependencies, access control, error responses."""
