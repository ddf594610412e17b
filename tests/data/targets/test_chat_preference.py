"""Chats with a rejected answer: the dialogue twice, by the tokenizer of the dialogues alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmtrain.data.targets.chat import ChatTarget
from mmtrain.data.targets.chat_preference import ChatPreference
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import DialoguePairTarget

ASKED = {"role": "user", "content": "<image>what is this?"}
TURNS = [ASKED, {"role": "assistant", "content": "a red square"}]
CELLS = [[TURNS, "a blue bar"], [TURNS, None], [[ASKED], "a bar"], [None, None]]


def target(kind: type[ChatTarget] = ChatPreference, holds: tuple[str, ...] = ("turns",), keep: bool = False) -> Any:
    plain = {"prompt": "<image>{question}", "tokenizer": None, "template": None, "vocab_size": 320, "max_length": 256}
    return kind(column_roles=list(holds), **plain, placeholders=["image"], keep_references=keep)


def test_both_dialogues_are_as_they_would_be_alone(tmp_path: Path) -> None:
    pair, plain = target(), target(ChatTarget)
    pair.fit(CELLS, tmp_path)
    plain.fit([cell[0] for cell in CELLS], tmp_path)
    assert isinstance(pair.known, DialoguePairTarget) and pair.known.names == plain.known.names
    loaded = [pair.load(cell) for cell in CELLS]
    assert loaded[3] is None
    batch = pair.pad(loaded)
    assert batch.shape[:2] == (4, 2) and batch.shape[3] == 2
    other = [ASKED, {"role": "assistant", "content": "a blue bar"}]
    for side, turns in zip(batch[0], (TURNS, other), strict=True):
        alone = plain.load(turns)
        assert torch.equal(side[: len(alone)], alone) and (side[len(alone) :, 1] == -1).all()
    assert (batch[1:, 1, :, 1] == -1).all()  # no rejected answer, or none to compare with
    assert torch.equal(batch[1, 0], batch[0, 0])
    drawn = pair.load([TURNS, "a bar", "a blue bar"])
    assert [pair.known.write(side[side[:, 1] > 0, 0].tolist()) for side in drawn] == ["a bar", "a blue bar"]
    assert torch.equal(pair.pad([pair.load([TURNS, None, "a bar"])]), pair.pad([loaded[1]]))
    assert torch.equal(pair.pad([plain.load(TURNS)]), pair.pad([loaded[1]]))
    pair.check_media(loaded[0], {"image": 1})
    with pytest.raises(SampleError, match="mentions <image> 1 times, but the row has 2"):
        pair.check_media(loaded[0], {"image": 2})
    assert pair.references(CELLS[0]) == ["a red square"]


@pytest.mark.parametrize("kind", [ChatTarget, ChatPreference])
def test_answers_are_kept_if_asked(kind: type[ChatTarget], tmp_path: Path) -> None:
    cells: list[Any] = [["what?", ["a cat", "cat"], "a dog"], ["who?", None, None]]
    cells = [cell[: 2 + (kind is ChatPreference)] for cell in cells]
    for keep in (True, False):
        made, again = (target(kind, ("question", "answer"), keep) for _ in range(2))
        made.fit(cells, tmp_path)
        made.save(tmp_path, "chat")
        again.restore(tmp_path, "chat")
        assert made.known.sentences == again.known.sentences == ([["a cat", "cat"]] if keep else [])
        assert type(again.known) is type(made.known)


@pytest.mark.parametrize("cell", ["a cat", [TURNS], [TURNS, "a", "b", "c"]])
def test_a_column_too_few_is_refused(cell: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs 2 columns.*\n.*data.columns.NAME=\[TURNS,REJECTED\]"):
        target().fit([cell], tmp_path)
