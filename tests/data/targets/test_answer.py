"""Answers: compared as the VQA evaluation does, what each is worth, what cannot be chosen."""

import itertools
import string
from pathlib import Path
from typing import Any

import pytest
import torch

from mmtrain.data.protocols import FittedKind, TargetKind
from mmtrain.data.targets.answer import Answer, normalise, vqa_accuracy
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import AnswerTarget


def fitted(*cells: Any, num_answers: int = 100) -> Answer:
    target = Answer(num_answers=num_answers)
    target.fit(cells, Path())
    return target


def worth(target: Answer, cell: Any) -> dict[str, float] | None:
    result = target.load(cell)
    if result is None:
        return None
    assert result.dtype == torch.float32 and result.shape == (len(target.known.names),)
    return {name: round(w, 4) for name, w in zip(target.known.names, result.tolist(), strict=True) if w > 0}


def test_it_is_a_target() -> None:
    target: TargetKind = Answer(num_answers=5)
    assert isinstance(target, FittedKind) and target.fingerprint != Answer(num_answers=6).fingerprint


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        ("Yes", "yes"),
        ("  a  Dog. ", "dog"),
        ("the cat and an owl", "cat and owl"),
        ("theater", "theater"),
        ("Two", "2"),
        ("none", "0"),
        ("someone", "someone"),
        ("3.5", "3.5"),
        ("3.", "3"),
        ("u.s.a.", "usa"),
        ("100,978", "100978"),
        ("red,blue", "red blue"),
        ("red, 2", "red 2"),
        ("2:50 PM", "2:50 pm"),
        ("girl's", "girl's"),
        ("girl’s", "girl's"),
        ("dont", "don't"),
        ("could'nt", "couldn't"),
        ("its", "its"),
        ("black/white", "black white"),
        ("t-shirt", "t shirt"),
        ("$5", "5"),
        ("what?!", "what"),
        ("हिन्दी", "हिन्दी"),
        ("猫。", "猫"),
        ("A", "a"),
        ("The", "the"),
        ("???", "???"),
        ("new\nyork", "new york"),
    ],
)
def test_answers_are_compared_as_the_evaluation_does(answer: str, same: str) -> None:
    assert normalise(answer) == same
    assert normalise(same) == same


def test_the_most_frequent_answers_can_be_chosen() -> None:
    target = fitted("Red", ["red", "blue", "blue."], None, "", ["green", " ", None], "blue", "aqua", num_answers=3)
    assert target.known == AnswerTarget(names=["blue", "red", "aqua"], counts=[3, 2, 1])
    assert fitted(None, "", [], float("nan")).known == AnswerTarget(names=[], counts=[])


def test_an_answer_is_worth_its_vqa_accuracy() -> None:
    people = ["yes"] * 5 + ["Yes.", "no", "no", "maybe", "a yes"]
    target = fitted(people, "no")
    assert worth(target, people) == {"yes": 1.0, "no": 0.6, "maybe": 0.3}
    assert worth(target, ["no"] * 3 + ["yes"] * 7) == {"yes": 1.0, "no": 0.9}
    assert worth(target, ["no"] * 4 + ["yes"] * 6) == {"yes": 1.0, "no": 1.0}
    assert worth(target, ["no", "no", "yes"]) == {"no": 0.4444, "yes": 0.2222}


def leave_one_out(message: str, people: list[str]) -> float:
    """The published rule, person by person."""
    scores = []
    for left_out in range(len(people)):
        others = [answer for place, answer in enumerate(people) if place != left_out]
        scores.append(min(1.0, sum(answer == message for answer in others) / 3))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("total", [2, 3, 4, 5, 10, 12])
def test_vqa_accuracy_is_the_mean_over_the_people_left_out(total: int) -> None:
    for count in range(total + 1):
        people = ["yes"] * count + [f"other {n}" for n in range(total - count)]
        assert vqa_accuracy(count, total) == pytest.approx(leave_one_out("yes", people), abs=1e-12)


def compared(answer: str) -> str:
    """The steps of visualqa.org/evaluation.html one after the other, character by character."""
    text = answer.lower()
    kept = ""
    for place, sign in enumerate(text):
        before, after = text[place - 1 : place], text[place + 1 : place + 2]
        if sign == "." and not after.isdigit():
            continue
        if sign == "," and before.isdigit() and after.isdigit():
            continue
        kept += " " if sign in string.punctuation and sign not in "':." else sign
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    words = []
    for word in kept.split():
        if word in ("a", "an", "the"):
            continue
        word = str(digits.index(word)) if word in digits else {"none": "0"}.get(word, word)
        words.append({"dont": "don't", "isnt": "isn't", "theyre": "they're", "oclock": "o'clock"}.get(word, word))
    return " ".join(words)


def test_normalisation_follows_the_published_steps() -> None:
    words = ["The", "a", "an", "two", "none", "ten", "3", "2.5", "dont", "isnt", "oclock", "theyre", "it's", "Red"]
    words += ["red,blue", "1,000", "1,000.5", "10:30", "u.s.", "t-shirt", "(no)", "black/white", "$5", "50%", "what?!"]
    checked = 0
    for first, second in itertools.product(words, repeat=2):
        answer = f"{first} {second}."
        if compared(answer):  # of articles alone nothing would be left
            assert normalise(answer) == compared(answer)
            checked += 1
    assert checked > 600


def test_an_only_answer_is_wholly_right() -> None:
    target = fitted("yes", "no", 2)
    assert worth(target, "No!") == worth(target, ["no"]) == worth(target, ["no", "", None]) == {"no": 1.0}
    assert worth(target, 2.0) == worth(target, "two") == {"2": 1.0}


def test_an_answer_that_cannot_be_chosen_is_zero_and_a_blank_one_is_none() -> None:
    target = fitted("yes", "yes", "no", num_answers=1)
    assert worth(target, "no") == worth(target, ["never", "no"]) == {}
    assert [worth(target, cell) for cell in (None, "", " ", [], [None, ""], float("nan"))] == [None] * 6


def test_the_annotations_of_vqa_serve_as_they_are() -> None:
    annotations = [{"answer": "red", "answer_confidence": "yes", "answer_id": n} for n in range(10)]
    target = fitted(annotations)
    assert target.known == AnswerTarget(names=["red"], counts=[10]) and worth(target, annotations) == {"red": 1.0}


@pytest.mark.parametrize("cell", [{"text": "red"}, [{"text": "red"}], [["red"]], {"answer": ["red"]}])
def test_a_wrong_cell_is_said(cell: Any) -> None:
    with pytest.raises(SampleError, match=r"red.*: not a text or a list of texts"):
        fitted("red", cell).load(cell)
    with pytest.raises(ConfigError, match=r"no row .* has an answer: such as .*red.*\n    fix: name a column of texts"):
        fitted(None, cell)


def test_a_vocabulary_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="num_answers = 0 is below 1; set it to 3000, for example"):
        Answer(num_answers=0)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    target = fitted("Bär", "猫", "猫")
    target.save(tmp_path, "reply")
    again = Answer(num_answers=100)
    again.restore(tmp_path, "reply")
    assert again.known == target.known and worth(again, "猫") == {"猫": 1.0}
    assert "猫" in (tmp_path / "answers_reply.json").read_text(encoding="utf-8")


def test_a_batch_holds_every_row() -> None:
    target = fitted("b", "b", "c")
    values = target.pad([target.load(["b", "b", "c"]), None])
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, torch.tensor([[4 / 9, 2 / 9], [0.0, 0.0]]))
