"""The model's arithmetic: loading, conditioning, denoising, decoding. The only layer that imports torch."""
