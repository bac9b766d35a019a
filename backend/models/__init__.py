"""Model and LoRA files on disk: download, verification, recognition."""
