"""Inputs: one class for each modality that an encoder reads."""
