"""Commands for whoever runs the server: its database, its devices, its keys."""
