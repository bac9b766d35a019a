"""The headers of weight files: safetensors and GGUF."""
