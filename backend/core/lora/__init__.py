"""What the tensors of a LoRA file mean, by name and shape."""
