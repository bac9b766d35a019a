"""Probes the device and applies the chosen precision and attention kernel."""
