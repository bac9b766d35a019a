"""The OpenAI-compatible routes: videos and models under `/v1`."""
