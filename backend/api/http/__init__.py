"""What every route shares: what it is given, who may call it, how errors are answered."""
