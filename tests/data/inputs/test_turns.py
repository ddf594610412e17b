"""Dialogues as inputs: which turns are taken, who speaks, what is no dialogue."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmtrain.data.inputs.turns import TurnsInput, turns_of
from mmtrain.errors import SampleError

TALK = [
    {"speaker": "Joey", "text": "how you doing"},
    {"speaker": "Phoebe", "text": "fine and you"},
    {"speaker": "Joey", "text": ""},
    {"speaker": "Ross", "text": "hello"},
    {"speaker": "Phoebe", "text": "hello you"},
]


def make_input(**options: Any) -> TurnsInput:
    given = {"tokenizer": None, "vocab_size": 60, "max_length": 6, "lowercase": True, "algorithm": "bpe"}
    reader = TurnsInput(**{**given, "max_turns": 4, "max_speakers": 3, "word_dropout": 0.0, **options})
    reader.fit([TALK, ["hello", "fine"]], Path())
    return reader


def test_speakers_count_from_the_last_one_and_a_long_dialogue_keeps_its_end() -> None:
    reader = make_input()
    loaded = reader.load(TALK, Path(), seed=0, train=False)
    assert loaded is not None
    value, _ = loaded
    assert value.shape == (4, 7) and value[:, 0].tolist() == [0, 2, 1, 0]  # Phoebe, Joey, Ross, Phoebe
    assert (value[1, 1:] == -1).all()  # an empty turn
    words = [reader.tokenizer.id_to_token(i) for i in value[2].tolist()[1:] if i >= 0]
    assert words[0] == "[CLS]" and words[-1] == "[SEP]"
    two = make_input(max_speakers=2).load(TALK, Path(), seed=0, train=False)
    assert two is not None and two[0][:, 0].tolist() == [0, 1, 1, 0]


def test_forms_of_one_dialogue() -> None:
    assert turns_of('["a", "b", "c"]') == turns_of(["a", "b", "c"])
    assert [turn.speaker for turn in turns_of(["a", "b", "c"])] == ["0", "1", "0"]
    assert turns_of([{"from": "human", "value": "x"}]) == turns_of([{"role": "human", "content": "x"}])
    assert turns_of("a word") == turns_of(["a word"])
    reader = make_input()
    assert reader.key(["a", "b"]) == reader.key('["a", "b"]') != reader.key(["b", "a"])
    assert reader.text(TALK[:2]) == "Joey: how you doing / Phoebe: fine and you"
    assert reader.load([], Path(), seed=0, train=False) is None


def test_padding_hides_what_is_not_there() -> None:
    reader = make_input()
    values = [reader.load(cell, Path(), seed=0, train=False) for cell in (TALK, ["hello"])]
    padded = reader.pad([values[0][0], None, values[1][0]])  # type: ignore[index]
    assert padded.values.shape == (3, 4, 7) and padded.mask is not None
    assert padded.mask.sum(dim=1).tolist() == [4, 0, 1]
    assert (padded.values[1, :, 1:] == -1).all() and not padded.values[:, :, 0][~padded.mask].any()


def test_words_are_hidden_in_training_by_the_seed() -> None:
    reader = make_input(word_dropout=0.5)
    one, two, other = (reader.load(TALK, Path(), seed=seed, train=True) for seed in (1, 1, 2))
    assert one is not None and two is not None and other is not None
    assert torch.equal(one[0], two[0]) and not torch.equal(one[0], other[0])


def test_the_texts_of_a_content_that_is_a_list_of_parts_are_read() -> None:
    parts = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "a "}, {"type": "text", "text": "cat"}]
    assert turns_of([{"role": "user", "content": parts}])[0].text == "a cat"


@pytest.mark.parametrize(
    ("cell", "message"),
    [("[1, ", "write it as JSON"), (3, "is no dialogue"), ([3], "is no turn"), ([{"text": 3}], "has no text, but 3")],
)
def test_what_is_no_dialogue_is_named(cell: Any, message: str) -> None:
    with pytest.raises(SampleError, match=message):
        turns_of(cell)


def test_a_number_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_turns = 0; set it to 1 or more"):
        make_input(max_turns=0)


BAD = ['["half \\ud83d"]', "[" * 200_000, [{"text": "half \ud83d"}], [3], 5, [{"text": ["a"]}], '[{"a":' * 120]


@pytest.mark.parametrize("cell", BAD)
def test_a_dialogue_that_cannot_be_read_is_set_aside_and_stops_no_vocabulary(cell: Any) -> None:
    reader = make_input()
    with pytest.raises(SampleError, match=r"no dialogue|no turn|no text|half of a surrogate pair"):
        reader.load(cell, Path(), seed=0, train=True)
    again = make_input()
    again.fit([cell, TALK, ["hello", "fine"], cell], Path())
    assert again.words() == reader.words()
