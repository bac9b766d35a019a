"""Kills a real server and its worker at random moments, and checks that every promise about tasks is kept."""
