"""Tokenizers, and the files that keep what a run learned from its training split."""
