"""Who watches whom: the supervisor, silence, stalls, last words, device failures and shutdown."""
