"""The web process as a whole: its parts, how each of them is, and how busy the machine is."""
