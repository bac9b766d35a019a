"""Use cases: submit a task, run one attempt of it, write its video. The only layer that combines the others."""
