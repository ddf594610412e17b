"""Example sentences that metrics keep for the report."""

import json
from collections.abc import Callable

from torch import Tensor

from mmtrain.types import Caption, Captions


def shown_captions(title: str, shown: Tensor, name: Callable[[int], str]) -> Captions:
    """Convert `shown` of `TextGeneration` to an item of the report.

    Args:
        title: title of the item.
        shown: uint8, lines of JSON.
        name: returns the id of a row.
    """
    rows = [json.loads(line) for line in bytes(shown.tolist()).splitlines()]
    return Captions(title, [Caption(name(row), hypothesis, right) for row, hypothesis, right in rows])
