"""What a shell sees: the command, its ranks and sweeps. Imports no torch."""
