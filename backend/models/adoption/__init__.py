"""Recognises other programs' files (ComfyUI, Wan2GP) and makes models of them."""
