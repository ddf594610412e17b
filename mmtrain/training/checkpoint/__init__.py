"""Checkpoints: write, find, verify, resume and transfer."""
