"""Who calls: scopes, API keys, what stands in for a key, and how often somebody may call."""
