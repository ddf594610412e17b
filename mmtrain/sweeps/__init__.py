"""Sweeps: runs that are done are passed over, trials that Optuna chooses, what a sweep came to."""
