"""Reports for people: one self-contained page per run, and the final table in the terminal."""
