"""LoRA tensors on the experts."""
