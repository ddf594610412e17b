"""Public data sets in their usual folders, which are read in place: nothing is copied or unpacked."""
