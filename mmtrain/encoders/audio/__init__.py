"""Encoders of the audio modality."""
