"""Use cases: submit, generate, fetch, plan. `run/` is what only the worker runs."""
