"""Requests: their forms, the rules of each model, sizes and prompts."""
