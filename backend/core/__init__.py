"""The domain: requests, states, errors and rules; imports no other layer."""
