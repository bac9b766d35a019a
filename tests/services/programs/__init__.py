"""Small programs that the tests run as separate processes."""
