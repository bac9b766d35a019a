"""One attempt at a task, in the worker: latents, clip, progress, out-of-memory recovery."""
