"""How fast and how loaded this server is: samples of the load, analyses of finished tasks, metrics for Prometheus."""
