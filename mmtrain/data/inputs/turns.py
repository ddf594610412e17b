"""A dialogue as an input: speaker and text of each turn; the last turn is the one to predict something for.

Unusual: speakers are numbered from the end, with 0 for the last speaker. A model learns the current speaker and the
other one, but no names.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmtrain.annotations import Fraction, Size, TextLength, VocabSize
from mmtrain.data.inputs.image import key_of
from mmtrain.data.inputs.text import Algorithm, TextInput
from mmtrain.data.tables.content_parts import is_medium, text_of_part
from mmtrain.data.tables.json_rows import parse_json
from mmtrain.data.tables.sample_errors import read_each
from mmtrain.data.tables.texts import check_text
from mmtrain.data.tables.turn_columns import SPEAKERS, WORDS
from mmtrain.errors import SampleError
from mmtrain.types import Padded

NOTHING = -1  # padding of turns


class Turn(NamedTuple):
    """One turn: its speaker, "" if it is not known, and its text, "" for a turn without text."""

    speaker: str
    text: str


class TurnsInput(TextInput):
    """A column of dialogues: lists of turns, or JSON of such a list. A turn is a text, or has a speaker and a text.

    Args:
        max_turns: maximum number of turns; of a longer dialogue, the last ones are used.
        max_speakers: maximum number of speakers; further ones count as the last of these.
        options: options of `TextInput`, for each turn.

    Raises:
        ValueError: for an invalid number.
    """

    kind = "dialogue"

    def __init__(
        self,
        *,
        max_turns: Size,
        max_speakers: Size,
        tokenizer: str | None,
        vocab_size: VocabSize,
        max_length: TextLength,
        lowercase: bool,
        algorithm: Algorithm,
        word_dropout: Fraction,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            max_length=max_length,
            lowercase=lowercase,
            algorithm=algorithm,
            word_dropout=word_dropout,
        )
        for name, number in (("max_turns", max_turns), ("max_speakers", max_speakers)):
            if number < 1:
                raise ValueError(f"{name} = {number}; set it to 1 or more")
        self.max_turns = max_turns
        self.max_speakers = max_speakers

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Train the tokenizer on the turns of the training split, or load the pretrained one."""
        super().fit([[turn.text for turn in turns] for turns in read_each(cells, turns_of)], folder)

    def load(  # type: ignore[override]  # an empty dialogue is None
        self, value: Any, folder: Path, *, seed: int, train: bool
    ) -> tuple[Tensor, int] | None:
        """(N, 1 + max_length), int64: the index of the speaker, then token ids; and the key of the dialogue.

        Raises:
            SampleError: if it is not a dialogue.
        """
        turns = turns_of(value)[-self.max_turns :]
        if not turns:
            return None
        numbers: dict[str, int] = {}
        for turn in reversed(turns):
            numbers.setdefault(turn.speaker, min(len(numbers), self.max_speakers - 1))
        out = torch.full((len(turns), 1 + self.max_length), NOTHING, dtype=torch.long)
        for place, turn in enumerate(turns):
            out[place, 0] = numbers[turn.speaker]
            if turn.text.strip():
                ids, _ = super().load(turn.text, folder, seed=seed + place, train=train)
                out[place, 1 : 1 + len(ids)] = ids
        return out, self.key(value)

    def key(self, value: Any) -> int:
        """The key of speakers and texts."""
        return key_of(json.dumps(turns_of(value), ensure_ascii=False))

    def text(self, value: Any) -> str:
        """The dialogue as readable text."""
        return " / ".join(f"{turn.speaker}: {turn.text}" if turn.speaker else turn.text for turn in turns_of(value))

    def pad(self, values: Sequence[Tensor | None]) -> Padded:
        """(B, N, 1 + max_length), padded to the most turns, and the mask (B, N)."""
        most = max((len(value) for value in values if value is not None), default=1)
        out = torch.full((len(values), most, 1 + self.max_length), NOTHING, dtype=torch.long)
        out[:, :, 0] = 0
        mask = torch.zeros(len(values), most, dtype=torch.bool)
        for row, value in enumerate(values):
            if value is not None:
                out[row, : len(value)] = value
                mask[row, : len(value)] = True
        return Padded(out, mask)


def turns_of(cell: Any) -> list[Turn]:
    """The turns of a cell; an empty list for an empty cell. In a list of texts, two speakers alternate.

    >>> turns_of('[{"speaker": "Joey", "text": "How you doin?"}, {"speaker": "Phoebe", "text": ""}]')
    [Turn(speaker='Joey', text='How you doin?'), Turn(speaker='Phoebe', text='')]
    >>> turns_of(["Hi", "Hello"])
    [Turn(speaker='1', text='Hi'), Turn(speaker='0', text='Hello')]

    Raises:
        SampleError: for anything else.
    """
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = parse_json(cell)
        except ValueError as error:
            raise SampleError(cell[:40], f"is no dialogue: {error}; write it as JSON") from error
    turns = [cell] if isinstance(cell, str) else cell
    if turns is None:
        return []
    if not isinstance(turns, list | tuple):
        raise SampleError(str(turns)[:40], 'is no dialogue, such as [{"speaker": "A", "text": "..."}]')
    return [_turn(turn, (len(turns) - 1 - place) % 2) for place, turn in enumerate(turns)]


def _turn(turn: Any, turn_taking: int) -> Turn:
    if isinstance(turn, str):
        return Turn(str(turn_taking), turn)
    if not isinstance(turn, Mapping):
        raise SampleError(str(turn)[:40], 'is no turn; write a text, or {"speaker": "A", "text": "..."}')
    speaker, text = (next((turn[n] for n in names if turn.get(n) is not None), "") for names in (SPEAKERS, WORDS))
    if isinstance(text, list) and all(isinstance(part, Mapping) for part in text):  # texts and media
        text = "".join(text_of_part(part) for part in text if not is_medium(part))
    if not isinstance(text, str):
        raise SampleError(str(turn)[:40], f"has no text, but {text!r}")
    check_text(text)
    return Turn(str(speaker), text)
