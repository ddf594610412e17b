"""The command line: the command, its ranks and sweeps. Imports no torch."""
