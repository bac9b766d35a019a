"""From files of weights to the components of a pipeline."""
