"""Turns a request into latents: conditioning, samplers, the denoising loop."""
