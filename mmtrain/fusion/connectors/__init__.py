"""Connectors from a modality encoder to a language model. Each maps `Features` to `Features` of the model's width."""
