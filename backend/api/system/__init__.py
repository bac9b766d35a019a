"""The system routes: health, statistics, components."""
