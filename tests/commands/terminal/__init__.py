"""What a person at a terminal reads: errors, help, ids and lists."""
