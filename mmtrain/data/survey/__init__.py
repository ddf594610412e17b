"""Survey of a data set before training."""
