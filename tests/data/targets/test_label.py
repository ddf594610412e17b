"""Class targets: names in order, gaps and unseen names, numbers however the table keeps them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmtrain.data.targets.label import ClassLabel
from mmtrain.types import ClassTarget


def fitted(*values: Any) -> ClassLabel:
    label = ClassLabel()
    label.fit(values, Path())
    return label


def test_classes_are_numbered_in_the_order_of_their_names() -> None:
    label = fitted("dog", "cat", "ant", "dog", None, "dog")
    assert label.known == ClassTarget(names=["ant", "cat", "dog"], counts=[1, 1, 3])
    index = label.load("dog")
    assert index is not None and index.item() == 2 and index.dtype == torch.int64 and index.shape == ()


@pytest.mark.parametrize("value", ["horse", "Cat", 7, None, "", " ", float("nan")])
def test_what_training_never_saw_is_a_gap(value: Any) -> None:
    assert fitted("dog", "cat").load(value) is None


def test_gaps_are_no_class() -> None:
    assert fitted("a", None, "", "  ", float("nan")).known == ClassTarget(names=["a"], counts=[1])
    assert fitted(None, "").known == ClassTarget(names=[], counts=[])
    assert fitted(None).load("") is None


@pytest.mark.parametrize("train", [[3, 1, 2], [3.0, 1.0, 2.0, None], ["3", "1", "2"]])
def test_numbers_are_the_same_class_as_integers_floats_and_text(train: list[Any]) -> None:
    # one split of a table with gaps comes as floats, another without gaps as integers
    label = fitted(*train)
    assert label.known.names == ["1", "2", "3"]
    assert [int(i) for v in (3, 3.0, "3") if (i := label.load(v)) is not None] == [2, 2, 2]


def test_fractions_and_truth_values_are_names() -> None:
    assert fitted(1.5, 2.0).known.names == ["1.5", "2"]
    assert fitted(True, False).known.names == ["False", "True"]


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    label = fitted("Bär", "Äpfel", "猫", "Bär")
    label.save(tmp_path, "kind")
    again = ClassLabel()
    again.restore(tmp_path, "kind")
    assert again.known == label.known
    assert [again.load(n) for n in label.known.names] == [torch.tensor(i) for i in range(3)]
    assert "猫" in (tmp_path / "classes_kind.json").read_text(encoding="utf-8")
