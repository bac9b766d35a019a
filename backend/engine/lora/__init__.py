"""Applies LoRA tensors to the experts."""
