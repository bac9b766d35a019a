"""The commands of `wan22`."""
