"""Search in the vectors of a trained model: an index of a folder, queries by any modality, classes by their names."""
