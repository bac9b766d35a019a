"""Downloads model files from the hub, or links files of other programs."""
