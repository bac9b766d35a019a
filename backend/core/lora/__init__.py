"""LoRA files by name and shape: keys, base model, expert, presets, receipts."""
