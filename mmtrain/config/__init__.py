"""Configuration: compose, validate, explain, and read that of a run folder. Imports no torch."""
