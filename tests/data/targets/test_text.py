"""Sentences to be generated: ids of a tokenizer of their own, and the way back to words."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmtrain.data.protocols import FittedKind, TargetKind
from mmtrain.data.targets.text import TextTarget
from mmtrain.types import TokenTarget
from tests.data.parts import NAMES, text_input

PAD, CLS, SEP = 0, 2, 3


def text_target(**changed: Any) -> TextTarget:
    return TextTarget(text=text_input(**{"algorithm": "wordpiece", "vocab_size": 200} | changed), keep_references=False)


def fitted(*cells: Any, **changed: Any) -> TextTarget:
    target = text_target(**changed)
    target.fit(cells or NAMES, Path())
    return target


def ids(target: TextTarget, cell: Any) -> list[int]:
    result = target.load(cell)
    assert result is not None and result.dtype == torch.int64 and result.ndim == 1
    return result.tolist()


def test_it_is_a_target() -> None:
    target: TargetKind = text_target()
    assert isinstance(target, FittedKind) and target.fingerprint != text_target(vocab_size=90).fingerprint


def test_a_sentence_has_the_ids_of_its_text_input() -> None:
    target = fitted(None, *NAMES, "", [NAMES[0], "golden cats"])
    reader = text_input(algorithm="wordpiece", vocab_size=200)
    reader.fit([*NAMES, NAMES[0], "golden cats"], Path())
    for name in NAMES:
        assert ids(target, name) == reader.load(name, Path(), seed=0, train=False)[0].tolist()
        assert ids(target, name)[0] == CLS and ids(target, name)[-1] == SEP


def test_tasks_are_told_of_the_tokens() -> None:
    known = fitted().known
    assert (known.pad, known.start, known.end, known.max_length) == (PAD, CLS, SEP, 10)
    assert known.names[:4] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] and len(set(known.names)) == len(known.names)
    assert max(i for name in NAMES for i in ids(fitted(), name)) < len(known.names) <= 200


def test_what_is_written_is_compared_with_every_whole_sentence() -> None:
    """Words that training never saw and what is behind `max_length` are part of what is right."""
    target = fitted(max_length=4)
    assert target.references("A Zebra’s stripes, 2nd of 3") == ["a zebra ’ s stripes, 2nd of 3"]
    assert target.references([NAMES[0], " ", "ｂ  c"]) == [NAMES[0].lower(), "b c"]
    plain = fitted()
    for name in NAMES:
        assert plain.references(name) == [plain.words(ids(plain, name))]


def test_words_come_back() -> None:
    target = fitted()
    assert [target.words(ids(target, name)) for name in NAMES] == list(NAMES)
    assert target.words([CLS, *ids(target, "a red cat")[1:], PAD, *ids(target, "a dog")]) == "a red cat"
    assert target.words([]) == target.words([SEP]) == ""


def test_the_first_of_several_is_the_one_and_nothing_is_drawn() -> None:
    target = fitted(word_dropout=0.9)
    assert ids(target, ["", "a red cat", "a green dog"]) == ids(target, "a red cat") == ids(fitted(), "a red cat")


@pytest.mark.parametrize("cell", [None, "", "  ", [], [None, " "], float("nan")])
def test_an_empty_cell_is_unlabelled(cell: Any) -> None:
    assert fitted().load(cell) is None
    assert fitted(cell).known == TokenTarget(names=[], max_length=10, pad=0, start=0, end=0)


def test_a_tokenizer_that_loses_words_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"text\.algorithm = bpe does not mark ends of words.*\n    fix: set it to wordpiece"
    ):
        text_target(algorithm="bpe")
    with pytest.raises(ValueError, match=r"text\.tokenizer = a/folder, but the tokenizer of a target"):
        text_target(tokenizer="a/folder")


def test_what_was_saved_gives_the_same_ids(tmp_path: Path) -> None:
    target = fitted()
    target.save(tmp_path, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer_target_text.json"]  # not that of the input `text`
    again = text_target()
    again.restore(tmp_path, "text")
    assert again.known == target.known
    for text in [*NAMES, "GREEN sheep!", "éàü 猫", "x " * 40]:
        assert ids(again, text) == ids(target, text)


def test_a_batch_is_filled_up_with_zeros() -> None:
    target = fitted()
    values = target.pad([torch.tensor([2, 7, 3]), None, torch.tensor([2, 8, 9, 3])])
    assert values.tolist() == [[2, 7, 3, 0], [0, 0, 0, 0], [2, 8, 9, 3]] and values.dtype == torch.int64
    assert target.pad([None]).tolist() == [[0]]
