"""The downloads of models: what was asked for, how each stands, and what people may change."""
