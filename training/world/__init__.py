"""What the clips show: scenes, captions, the held-out split, LoRA effects, image analysis."""
