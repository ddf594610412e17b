"""Fusion modules. Each maps `dict[str, Features]` to `Features` and says its width in `dim`."""
