"""Rows of a data set -> Samples -> Batches. Never imports the model side."""
