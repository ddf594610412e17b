"""Tokenizers, and the files with everything that a run has learned from its training split."""
