"""The planning routes: estimates, optimization settings, resource limits."""
