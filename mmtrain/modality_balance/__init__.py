"""Modality balancing: prevents one modality from dominating training; see `modality_balance.py` for the interface."""
