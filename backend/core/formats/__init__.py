"""Headers of weight files: safetensors and GGUF."""
