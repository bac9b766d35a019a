"""LoRA files on disk: upload, catalogue, base model, assignment to experts at submit."""
