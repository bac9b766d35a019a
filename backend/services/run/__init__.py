"""One attempt at a task, in the worker: latents, clip, progress, memory."""
