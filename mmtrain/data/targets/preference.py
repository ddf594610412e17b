"""A chosen and a rejected sentence from different columns, as token ids of one tokenizer."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtrain.data.tables.sample_errors import read_each
from mmtrain.data.tables.scale import in_short
from mmtrain.data.targets.text import TextTarget
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import PairTarget


class Preference(TextTarget):
    """Two columns, `data.columns.NAME=[CHOSEN,REJECTED]`, or three, `[RIGHT,CHOSEN,REJECTED]`.

    The tokenizer is that of a `TextTarget` of the first column, so weights of a run that learned to generate those
    sentences fit. That column has the correct sentences. The rejected sentence may be missing in a row. Then the
    correct one is evaluated, but nothing is learned from it. Of a list of several, the first one is used. The arguments
    are those of `TextTarget`.
    """

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Train the tokenizer on the first column.

        Raises:
            ConfigError: if no cell has two or three columns.
        """
        faults: list[SampleError] = []
        right = list(read_each(cells, _right, faults))
        if faults and not right:
            raise ConfigError(
                f"{faults[0].reason}\n"
                "    fix: set data.columns.NAME=[CHOSEN,REJECTED], columns of the table, or [RIGHT,CHOSEN,REJECTED]"
            )
        super().fit(right, folder)

    def _learned(self, sentences: list[list[str]]) -> None:
        super()._learned(sentences)
        self.known = PairTarget(**vars(self.known))

    def load(self, value: Any) -> Tensor | None:
        """Token ids (2, L), int64, chosen and rejected, padded with [PAD]; None if there is nothing to evaluate.

        Raises:
            SampleError: for a cell without two or three columns.
        """
        right = super().load(_right(value))
        if right is None:
            return None
        chosen, rejected = super().load(value[-2]), super().load(value[-1])
        present = chosen is not None and rejected is not None
        return self.text.pad([chosen, rejected] if present else [right, None]).values

    def pad(self, values: Sequence[Tensor | None]) -> Tensor:
        """(B, 2, L), int64, padded with [PAD] to the longest."""
        sides = [side for value in values for side in ((None, None) if value is None else value.unbind())]
        return self.text.pad(sides).values.unflatten(0, (-1, 2))

    def references(self, value: Any) -> list[str]:
        """All correct sentences."""
        return super().references(_right(value))


def _right(cell: Any) -> Any:
    if not isinstance(cell, list | tuple) or len(cell) not in (2, 3):
        shown = in_short(cell)
        raise SampleError(shown, f"a preference has two or three columns, but a cell has {shown!r}")
    return cell[0]
