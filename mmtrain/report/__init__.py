"""The run for a person to look at: one self-contained page, and the table that ends a run in the terminal."""
