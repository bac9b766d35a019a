"""Whether a model is here and in use, what to do without it, and what to clean up."""
