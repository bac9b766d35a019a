"""How fast this server works: samples of the load, sums over ended tasks, and metrics for Prometheus."""
