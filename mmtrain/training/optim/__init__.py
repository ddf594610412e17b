"""Optimizer options and learning-rate schedules."""
