"""wan22: a self-hosted server that turns text and images into video with Wan2.2."""

__version__ = "0.1.0"
