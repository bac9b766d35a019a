"""Model files on disk: presence, download, adoption, recognition."""
