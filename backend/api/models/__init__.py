"""The model routes: status, downloads, advice, cleanup."""
