"""Encoders of the vector modality."""
