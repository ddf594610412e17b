"""Loggers that are not available in Lightning in this form."""
