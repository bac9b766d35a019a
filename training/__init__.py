"""How the embedded tiny video model was made: its world, its recipe and its judge.

Nothing in the served package imports this folder. It needs torch, diffusers and transformers, and Pillow for pictures.
"""
