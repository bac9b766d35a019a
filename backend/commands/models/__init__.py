"""`wan22 models`: list, add, adopt, and clean up."""
