"""Fusion modules. Each maps `dict[str, Features]` to `Features`, whose width is the attribute `dim`."""
