"""Which device computes, with which kernels and in which precision."""
