"""The processes that generate: claim, run, finish; supervise."""
