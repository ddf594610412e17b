"""A dialogue, and an answer that is not preferred to its last one, in a column of its own."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtrain.data.chat_target import ChatTarget
from mmtrain.data.columns import is_empty
from mmtrain.data.dialogue import Dialogue, dialogue_of
from mmtrain.data.text import texts_of
from mmtrain.errors import ConfigError
from mmtrain.types import DialoguePairTarget


class ChatPreference(ChatTarget):
    """The columns of a `ChatTarget` and one more, `data.columns.NAME=[...,REJECTED]`; a row may lack what is there.

    The tokenizer is that of the dialogues, so that the weights of a run that learned to answer them fit. The arguments
    are those of `ChatTarget`; `holds` does not name the rejected answer, which comes last.
    """

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Take or train the tokenizer, on the dialogues.

        Raises:
            ConfigError: as `ChatTarget`, and when there is no further column.
        """
        super().fit((self._chosen(cell) for cell in cells), folder)

    def _chosen(self, cell: Any) -> Any:
        number = len(self.holds)
        if not isinstance(cell, list | tuple) or len(cell) != number + 1:
            raise ConfigError(
                f"a preference is of {number + 1} columns, {', '.join(self.holds)} and the rejected answer, but a cell"
                f" holds {str(cell)[:40]!r}\n"
                f"    set data.columns.NAME=[{','.join(map(str.upper, self.holds))},REJECTED]"
            )
        return cell[0] if number == 1 else cell[:-1]

    def _learned(self, used: Iterable[str], kinds: list[str], sentences: list[list[str]]) -> None:
        super()._learned(used, kinds, sentences)
        self.known = DialoguePairTarget(**vars(self.known))

    def load(self, value: Any) -> Tensor | None:
        """(2, L, 2), int64, the dialogue with the chosen and the rejected answer; None for a cell that asks nothing.

        Raises:
            SampleError: as `ChatTarget`.
        """
        dialogue = dialogue_of(self._chosen(value), holds=self.holds, prompt=self.prompt)
        if dialogue is None:
            return None
        there = bool(dialogue.answers) and not is_empty(value[-1]) and bool(texts_of(value[-1]))
        other = self.encode(_answered(dialogue, texts_of(value[-1])[0])) if there else None
        return super().pad([self.encode(dialogue), other])

    def pad(self, values: Sequence[Tensor | None]) -> Tensor:
        """(B, 2, L, 2), int64, filled up with the id of padding and -1."""
        sides = [side for value in values for side in ((None, None) if value is None else value.unbind())]
        return super().pad(sides).unflatten(0, (-1, 2))

    def check_media(self, value: Tensor, media: Mapping[str, int]) -> None:
        """As `ChatTarget`; both dialogues speak of the same media."""
        super().check_media(value[0], media)

    def references(self, value: Any) -> list[str]:
        """Every chosen answer."""
        return super().references(self._chosen(value))


def _answered(dialogue: Dialogue, answer: str) -> Dialogue:
    """The dialogue with another last answer."""
    return dialogue._replace(turns=[*dialogue.turns[:-1], {"role": "assistant", "content": answer}])
