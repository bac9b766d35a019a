"""What the clips show: scenes and captions, the held-out split, the LoRA effects, and the analysis of frames."""
