"""Connectors: what a language model is given of a medium. Each maps `Features` to `Features` of the model's width."""
