"""`wan22 conformance`: checks any server of `/v1/videos` against what the packages of OpenAI need of it."""
