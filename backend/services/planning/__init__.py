"""What a request will take on the machine that runs it, and what finished runs say about that."""
