"""The domain: requests, states, errors, settings, the model table. Imports no other layer, no SQL, no torch."""
