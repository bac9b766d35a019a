"""HTTP and WebSocket in and out: shapes, status codes, ranges, topics. No rules, no SQL, no torch."""
