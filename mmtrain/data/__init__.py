"""Rows of a data set become Samples, and Samples become Batches. Never imports the model side."""
