"""The only layer that imports torch: loading, sampling, decoding."""
