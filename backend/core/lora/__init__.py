"""What LoRA files mean, decided on names and shapes alone: no tensors, no torch, no folders."""
