"""The LoRA files of this machine: taken in, listed, checked, and routed to experts."""
