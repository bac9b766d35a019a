"""What the pages about speed and load are computed from: ended tasks, and samples of the machine's load."""
