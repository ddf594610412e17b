"""Estimates the resources of a run before it starts: memory, operations, communication, time, disk."""
