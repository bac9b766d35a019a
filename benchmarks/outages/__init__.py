"""Takes from a running server, for a minute, what it stands on, and looks whether a clip in work suffers from it."""
