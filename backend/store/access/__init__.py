"""API keys, what belongs to which key, and what each has used."""
