"""A sentence that is preferred and one that is not, of two columns, as token ids of one tokenizer."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtrain.data.text_target import TextTarget
from mmtrain.errors import ConfigError
from mmtrain.types import PairTarget


class Preference(TextTarget):
    """Two columns, `data.columns.NAME=[CHOSEN,REJECTED]`; a row may lack the rejected one.

    The tokenizer is that of a `TextTarget` of the chosen column, so that the weights of a run that learned to write
    those sentences fit. Of a list of several, the first one is taken, on both sides; what is right is the chosen side.
    The arguments are those of `TextTarget`.
    """

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Train the tokenizer on the chosen sentences.

        Raises:
            ConfigError: when the cells are not of two columns.
        """
        super().fit((_chosen(cell) for cell in cells), folder)

    def _learned(self, sentences: list[list[str]]) -> None:
        super()._learned(sentences)
        self.known = PairTarget(**vars(self.known))

    def load(self, value: Any) -> Tensor | None:
        """Token ids (2, L), int64, chosen and rejected, filled up with [PAD]; None where nothing is chosen."""
        chosen = super().load(_chosen(value))
        return None if chosen is None else self.text.pad([chosen, super().load(value[1])]).values

    def pad(self, values: Sequence[Tensor | None]) -> Tensor:
        """(B, 2, L), int64, filled up with [PAD] to the longest."""
        sides = [side for value in values for side in ((None, None) if value is None else value.unbind())]
        return self.text.pad(sides).values.unflatten(0, (-1, 2))

    def references(self, value: Any) -> list[str]:
        """Every chosen sentence."""
        return super().references(_chosen(value))


def _chosen(cell: Any) -> Any:
    if not isinstance(cell, list | tuple) or len(cell) != 2:
        raise ConfigError(
            f"a preference is of two columns, but a cell holds {cell!r}\n"
            "    set data.columns.NAME=[CHOSEN,REJECTED], two columns of the table"
        )
    return cell[0]
