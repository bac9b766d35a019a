"""The networks and how they learn: data in latent space, losses, the optimizer and the resumable loop."""
