"""Several classes at once: against scikit-learn, what is unlabelled and what is known to have none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import MultiLabelBinarizer

from mmtrain.data.protocols import FittedKind, TargetKind
from mmtrain.data.targets.multilabel import MultiLabel
from mmtrain.types import MultiLabelTarget


def fitted(*cells: Any, separator: str | None = "|") -> MultiLabel:
    target = MultiLabel(separator=separator)
    target.fit(cells, Path())
    return target


def ones(target: MultiLabel, cell: Any) -> list[str] | None:
    has = target.load(cell)
    return None if has is None else [target.known.names[i] for i in has.nonzero()[:, 0]]


def test_it_is_a_target() -> None:
    target: TargetKind = MultiLabel(separator="|")
    assert isinstance(target, FittedKind) and target.fingerprint != MultiLabel(separator=";").fingerprint


def test_lists_become_what_scikit_learn_makes_of_them() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.choice(["red", "Blue", "Äpfel", "10", "9"], rng.integers(0, 5)).tolist() for _ in range(50)]
    target = fitted(*rows)
    reference = MultiLabelBinarizer()
    want = reference.fit_transform(rows)
    assert target.known.names == reference.classes_.tolist()
    assert target.known.counts == want.sum(0).tolist() and target.known.num_rows == 50
    for row, has in zip(rows, want, strict=True):
        cells: list[Any] = [row, "|".join(row) or "|", " | ".join(row) or []]
        for cell in cells:
            result = target.load(cell)
            assert result is not None and result.dtype == torch.float32 and result.tolist() == has.tolist()


def test_an_empty_list_is_labelled_and_a_blank_cell_is_not() -> None:
    cells: list[Any] = [["a", "b"], [], "|", None, "", "  ", float("nan"), [None], ["", None], "a"]
    target = fitted(*cells)
    assert target.known == MultiLabelTarget(names=["a", "b"], counts=[2, 1], num_rows=4)
    assert [ones(target, cell) for cell in cells] == [["a", "b"], [], [], *[None] * 6, ["a"]]


def test_nothing_but_gaps_is_no_target() -> None:
    assert fitted(None, "", float("nan")).known == MultiLabelTarget(names=[], counts=[], num_rows=0)
    assert fitted([], []).known == MultiLabelTarget(names=[], counts=[], num_rows=2)


def test_unseen_names_are_left_out_and_counted() -> None:
    target = fitted("a|b")
    assert ones(target, ["b", "horse"]) == ["b"] and ones(target, "horse|cow|horse") == []
    assert target.unseen == {"horse": 2, "cow": 1}


def test_a_name_counts_once_a_row_and_numbers_are_names() -> None:
    target = fitted(["a", "a", None], [3.0, 3, "3", 4], 4, separator=None)
    assert target.known == MultiLabelTarget(names=["3", "4", "a"], counts=[1, 2, 1], num_rows=3)
    assert ones(target, (4.0, "a")) == ones(target, np.array(["a", "4"])) == ["4", "a"]


def test_the_separator_is_the_users() -> None:
    assert fitted("a, b", separator=",").known.names == ["a", "b"]
    assert fitted("a|b", separator=None).known.names == ["a|b"]
    words = fitted("a red  cat", "a dog", "  ", separator=" ")
    assert words.known.names == ["a", "cat", "dog", "red"] and words.load("  ") is None
    with pytest.raises(ValueError, match=r"separator = '' is blank; set it to '\|' or, for one name per cell, to null"):
        MultiLabel(separator="")


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    target = fitted("Bär|猫", [], ["Äpfel", "猫"])
    target.save(tmp_path, "tags")
    again = MultiLabel(separator="|")
    again.restore(tmp_path, "tags")
    assert again.known == target.known and ones(again, "猫") == ["猫"]
    assert "猫" in (tmp_path / "labels_tags.json").read_text(encoding="utf-8")


def test_a_batch_holds_every_row() -> None:
    target = fitted("a|b|c")
    values = target.pad([target.load("b|c"), None, target.load([])])
    assert values.tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]] and values.dtype == torch.float32
