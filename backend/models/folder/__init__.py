"""A model's folder: manifest, integrity and quarantine, state, locks, disk usage."""
