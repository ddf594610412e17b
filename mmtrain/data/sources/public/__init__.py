"""Public data sets in the folders in which people have them: read where they lie, nothing is copied or unpacked."""
