"""Sentences that metrics kept for a report."""

import json
from collections.abc import Callable

from torch import Tensor

from mmtrain.types import Caption, Captions


def shown_captions(title: str, shown: Tensor, name: Callable[[int], str]) -> Captions:
    """What `TextGeneration` computes as `shown`, for people.

    Args:
        title: above it.
        shown: uint8, lines of JSON.
        name: gives the id of a row.
    """
    rows = [json.loads(line) for line in bytes(shown.tolist()).splitlines()]
    return Captions(title, [Caption(name(row), said, right) for row, said, right in rows])
