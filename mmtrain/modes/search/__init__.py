"""Search with the vectors of a trained model: an index of a folder, queries of any modality, zero-shot classes."""
