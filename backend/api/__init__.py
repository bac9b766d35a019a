"""HTTP and WebSocket in and out, a folder for each subject: no rules, no SQL, no torch."""
