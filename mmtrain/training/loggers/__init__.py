"""Loggers that Lightning does not have in the form that is needed here."""
