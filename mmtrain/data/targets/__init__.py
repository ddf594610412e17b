"""Targets: one class for each kind of label that a task learns."""
