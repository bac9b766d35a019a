"""config.json: the file, its sections, and the download limit."""
