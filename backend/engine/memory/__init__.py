"""Where weights live while a job runs, and how full memory is."""
