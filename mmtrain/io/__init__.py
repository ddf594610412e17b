"""Files that are replaced atomically, files of a run folder, errors of the system, and text for the terminal."""
