"""Calls to addresses that clients name: allowed by the operator, checked, pinned and bounded."""
