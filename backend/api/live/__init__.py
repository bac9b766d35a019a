"""News over WebSocket: progress of tasks and downloads."""
