"""What is saved of a job, and how it is read back."""
