"""Tables, their columns, rows and splits. Imports no torch."""
