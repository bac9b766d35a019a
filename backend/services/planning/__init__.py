"""Forecasts for this machine, and what finished runs teach them."""
