"""Model files on this disk: what is here, how it gets here, and what it is."""
