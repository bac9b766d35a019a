"""Live updates over WebSocket: progress of tasks and downloads."""
