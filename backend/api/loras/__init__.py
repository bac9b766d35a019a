"""The LoRA routes: list, upload, download, delete."""
