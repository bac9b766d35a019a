"""Tests of the worker processes and their supervisor."""
