"""The performance routes: load over time, figures of ended tasks, reports, and metrics for Prometheus."""
