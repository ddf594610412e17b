"""Encoders of the sequence modality."""
