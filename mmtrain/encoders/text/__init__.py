"""Encoders of the text modality."""
