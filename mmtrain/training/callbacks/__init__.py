"""Callbacks of the Trainer: checkpoints on interruption, tables, the progress bar ..."""
