"""Overwrites bytes of the database at random, as failing storage does, and looks at what a server makes of it."""
