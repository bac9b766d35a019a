"""Placement of weights during a job, and memory readings."""
