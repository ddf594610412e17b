"""A dialogue, and a rejected alternative to its last answer in another column."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtrain.data.decoding.dialogue import Dialogue, dialogue_of
from mmtrain.data.tables.columns import is_empty
from mmtrain.data.tables.sample_errors import read_each
from mmtrain.data.tables.scale import in_short
from mmtrain.data.tables.texts import valid_texts
from mmtrain.data.targets.chat import ChatTarget
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import DialoguePairTarget


class ChatPreference(ChatTarget):
    """The columns of a `ChatTarget` with one or two more, `data.columns.NAME=[...,REJECTED]`, `[...,CHOSEN,REJECTED]`.

    With one, the answer of the dialogue is the chosen one. The rejected one may be missing in a row. Then the dialogue
    is evaluated, but nothing is learned from it. The tokenizer is that of the dialogues, so weights of a run that
    learned their answers fit. The arguments are those of `ChatTarget`; `column_roles` includes neither column.
    """

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Load or train the tokenizer on the dialogues.

        Raises:
            ConfigError: as in `ChatTarget`, and if no cell has an additional column.
        """
        faults: list[SampleError] = []
        right = list(read_each(cells, self._right, faults))
        if faults and not right:
            raise ConfigError(
                f"{faults[0].reason}\n    fix: set"
                f" data.columns.NAME=[{','.join(map(str.upper, self.column_roles))},REJECTED]"
            )
        super().fit(right, folder)

    def _right(self, cell: Any) -> Any:
        number = len(self.column_roles)
        if not isinstance(cell, list | tuple) or len(cell) not in (number + 1, number + 2):
            raise SampleError(
                in_short(cell),
                f"a preference needs {number + 1} columns, {', '.join(self.column_roles)} and the rejected answer, but"
                f" a cell"
                f" holds {in_short(cell)!r}",
            )
        return cell[0] if number == 1 else cell[:number]

    def _learned(self, used: Iterable[str], kinds: list[str], sentences: list[list[str]]) -> None:
        super()._learned(used, kinds, sentences)
        self.known = DialoguePairTarget(**vars(self.known))

    def load(self, value: Any) -> Tensor | None:
        """(2, L, 2), int64, the dialogue with the chosen and the rejected answer; None for a cell without a question.

        Raises:
            SampleError: as in `ChatTarget`.
        """
        dialogue = dialogue_of(self._right(value), holds=self.column_roles, prompt=self.prompt)
        if dialogue is None:
            return None
        sides = value[len(self.column_roles) :]
        if not dialogue.answers or any(is_empty(side) for side in sides):
            return super().pad([self.encode(dialogue), None])
        answered = [_answered(dialogue, valid_texts(side)[0]) for side in sides]
        return super().pad([self.encode(one) for one in [dialogue, *answered][-2:]])

    def pad(self, values: Sequence[Tensor | None]) -> Tensor:
        """(B, 2, L, 2), int64, padded with the padding id and -1."""
        sides = [side for value in values for side in _sides(value)]
        return super().pad(sides).unflatten(0, (-1, 2))

    def check_media(self, value: Tensor, media: Mapping[str, int]) -> None:
        """As in `ChatTarget`; both dialogues mention the same media."""
        super().check_media(value[0], media)

    def references(self, value: Any) -> list[str]:
        """All correct answers."""
        return super().references(self._right(value))


def _sides(value: Tensor | None) -> tuple[Tensor | None, ...]:
    if value is None:
        return None, None
    return (
        value.unbind() if value.ndim == 3 else (value, None)
    )  # a dialogue that is not in a table: mmtrain/modes/chat/pipeline.py


def _answered(dialogue: Dialogue, answer: str) -> Dialogue:
    """The dialogue with another last answer."""
    return dialogue._replace(turns=[*dialogue.turns[:-1], {"role": "assistant", "content": answer}])
