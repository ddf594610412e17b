"""Modality encoders. Each takes `(values, mask)` of `Padded` and returns `Features`, whose width is `dim`."""
