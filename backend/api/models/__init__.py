"""Routes about models: status, downloads, advice, cleanup."""
