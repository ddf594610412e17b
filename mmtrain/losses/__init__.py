"""Loss functions. They return (sum, count), so that the mean is taken once, over the complete step."""
