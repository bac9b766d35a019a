"""What a machine can run: memory plans, sizes, seconds, and the choice among them."""
