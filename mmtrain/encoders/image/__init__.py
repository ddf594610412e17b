"""Encoders of the image modality."""
