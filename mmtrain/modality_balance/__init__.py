"""What keeps one modality from learning so fast that others starve; `modality_balance.py` says what it must offer."""
