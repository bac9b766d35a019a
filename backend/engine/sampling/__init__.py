"""From a request to latents: conditioning, samplers, the denoising loop."""
