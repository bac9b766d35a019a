"""The commands of `wan22`, a module for each group."""
