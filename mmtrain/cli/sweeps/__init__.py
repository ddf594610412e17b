"""Sweeps on the command line: trials that Optuna chooses, and the summary at the end."""
