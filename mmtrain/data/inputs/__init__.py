"""Inputs: one class for each modality of an encoder."""
