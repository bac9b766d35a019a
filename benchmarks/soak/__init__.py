"""Works for half an hour like a busy day, and looks whether memory, handles, threads or the database grow."""
