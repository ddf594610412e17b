"""Encoders of the video modality."""
