"""A look over a data set before training."""
