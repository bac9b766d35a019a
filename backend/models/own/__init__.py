"""The user's own models: entries in config.json and the files behind them."""
