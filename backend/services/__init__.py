"""Use cases: submit, generate, download, plan; `run/` is for the worker only."""
