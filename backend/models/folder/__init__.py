"""One model's folder: its manifest, its state, its locks, and what it takes on the disk."""
