"""Modality encoders. Each takes `(values, mask)` of `Padded`, returns `Features` and says its width in `dim`."""
