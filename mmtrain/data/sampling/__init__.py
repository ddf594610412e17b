"""Assignment of samples to batches."""
