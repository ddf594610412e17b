"""Modality balancing: prevents one modality from dominating training; see `balance.py` for the interface."""
