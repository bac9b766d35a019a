"""The networks and how they learn: latents, losses, the optimizer, the resumable loop."""
