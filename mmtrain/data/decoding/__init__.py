"""Decoding of cells and files: images, sounds, videos and dialogues."""
