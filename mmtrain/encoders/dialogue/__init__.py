"""Encoders of dialogues."""
