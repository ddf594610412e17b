"""A survey of a data set with known faults."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from mmtrain.data.inputs.turns import TurnsInput
from mmtrain.data.module import DataModule
from mmtrain.data.sampling.buckets import Buckets
from mmtrain.data.survey.overlap import Overlap
from mmtrain.data.survey.survey import NO_CLASS, Limits, shares, survey_of
from mmtrain.data.tables.tables import Tables
from mmtrain.data.targets.answer import Answer
from mmtrain.data.targets.label import ClassLabel
from mmtrain.data.targets.multilabel import MultiLabel
from mmtrain.data.targets.number import Number
from tests.data.parts import WHOLE, draw_pictures, image_input, text_input, write_rows

LIMITS = Limits(heavy=100, measured=100, decoded=100, files=100, file_bytes=1 << 20)


def module(source: Callable[[], Path | Tables], folder: Path, **changed: Any) -> DataModule:
    parts: dict[str, Any] = {
        "inputs": {"image": image_input(), "text": text_input()},
        "targets": {
            "label": ClassLabel(),
            "labels": MultiLabel(separator="|"),
            "number": Number(scale="standard"),
            "answer": Answer(num_answers=1),
        },
    }
    options: dict[str, Any] = {
        "split": WHOLE,
        "columns": {},
        "max_bad_fraction": 0.5,
        "label_fraction": 1.0,
        "modality_dropout": 0.0,
        "restrict_paths": False,
        "license": None,
        "languages": None,
        "bucket": Buckets(by=None, window=20, max_tokens=None),
        "batch_size": 1,
        "eval_batch_size": 1,
        "num_workers": 0,
        "seed": 0,
        "num_micro_batches": 1,
    }
    data = DataModule(source=source, **parts | options | changed)
    data.read(folder / "run", training=True)
    return data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw_pictures(tmp_path, 6)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    (tmp_path / "bad.png").write_bytes(b"no picture")
    train = [
        {"id": "a", "image": "0.png", "caption": "A red cat", "label": "cat", "tags": ["x", "y"], "score": 1.0},
        {"id": "b", "image": "1.png", "caption": ["one", "two"], "label": "dog", "tags": [], "score": 2.0},
        {"id": "c", "image": None, "caption": "three", "label": "cat", "tags": ["x"], "score": None},
        {"id": "d", "image": None, "caption": " ", "label": None, "tags": None, "score": 6.0},
        {"id": "e", "image": "bad.png", "caption": None, "label": "cat", "tags": ["y"], "score": 3.0},
    ]
    for row, answer in zip(train, ("yes", "yes", "no", None, "yes"), strict=True):
        row["answer"] = answer
    val = [
        {"id": "a", "image": "copy.png", "caption": "a  red cat", "label": "bird"},
        {"id": "g", "image": "5.png", "caption": "five", "label": "dog"},
    ]
    write_rows(tmp_path / "train.jsonl", train)
    write_rows(tmp_path / "val.jsonl", val)
    return tmp_path


def test_what_is_missing_and_what_cannot_be_read(folder: Path) -> None:
    survey = survey_of(module(lambda: folder, folder), LIMITS)
    assert survey.seen["train"] == dict.fromkeys(("image", "text", "label", "labels", "number", "answer"), 5)
    train = {"image": 2, "text": 2, "label": 1, "labels": 1, "number": 1, "answer": 1}
    assert survey.missing == {"train": train | {"labels": 2}, "val": {"image": 0, "text": 0, "label": 0}}
    assert survey.nothing == {"train": ["d"], "val": []}
    assert [(bad.id, bad.row, bad.file) for bad in survey.bad["train"]] == [("e", 4, "bad.png")]
    assert (survey.bad["val"], survey.decoded) == ([], {"train": 5, "val": 2})


def test_labels_are_counted_by_split(folder: Path) -> None:
    survey = survey_of(module(lambda: folder, folder), LIMITS)
    assert survey.balance["label"] == {"train": Counter(cat=3, dog=1), "val": Counter({"dog": 1, NO_CLASS: 1})}
    assert survey.balance["labels"] == {"train": Counter(x=2, y=2)}
    assert survey.balance["answer"] == {"train": Counter({"yes": 3, NO_CLASS: 1})}
    assert survey.labelled["label"] == {"train": 4, "val": 2}
    assert survey.labelled["labels"] == {"train": 4}, "an empty list says: none of them"
    number = survey.lengths["train"]["number"][0]
    assert (number.unit, number.low, number.median, number.high, number.num) == ("value", "1", "2.5", "6", 4)


def test_what_splits_share(folder: Path) -> None:
    survey = survey_of(module(lambda: folder, folder), LIMITS)
    both = {"train": ["a"], "val": ["a"]}
    assert survey.shared_ids == [Overlap("a", both)]
    assert survey.shared_files == {"image": [Overlap("0.png", both)]}
    assert survey.shared_texts == {"text": [Overlap("a red cat", both)]}
    assert survey.num_texts == {"text": 5}
    assert survey.notes == []


def test_files_inside_a_table_are_sampled(tmp_path: Path) -> None:
    names = draw_pictures(tmp_path, 6)
    content = {"bytes": [(tmp_path / name).read_bytes() for name in names]}
    table = datasets.Dataset.from_dict({"image": content["bytes"], "caption": names})
    tables = Tables(splits={"train": table, "val": table}, names={"train": "t", "val": "v"}, folder=tmp_path)
    few = Limits(heavy=3, measured=2, decoded=1, files=2, file_bytes=1 << 20)
    survey = survey_of(module(lambda: tables, tmp_path), few)
    assert survey.seen["train"] == {"image": 3, "text": 6}
    assert survey.lengths["train"]["image"][0].num == 2
    assert survey.decoded["train"] == 1
    assert [one.rows for one in survey.shared_files["image"]] == [{"train": [n], "val": [n]} for n in ("0", "2")]
    assert survey.notes == ["image: not all files were compared, because they are many"]


def test_a_bad_first_row_stops_nothing(tmp_path: Path) -> None:
    """Neither learning of vocabularies, lengths and classes, nor the survey of all of it."""
    names = draw_pictures(tmp_path, 6)
    captions = [b"\xff\xfe", *(b"cat %d" % n for n in range(1, 6))]
    column = pa.Array.from_buffers(pa.string(), 6, pa.array(captions, pa.binary()).buffers())
    talks = ['["half \\ud83d"]', "[" * 200_000, *['["a cat", "a dog"]'] * 4]
    cells = {"image": names, "caption": column, "dialogue": talks, "label": list("abcabc"), "number": ["x", *"12345"]}
    tables = Tables(splits={"train": datasets.Dataset(pa.table(cells))}, names={"train": "t"}, folder=tmp_path)
    turns = TurnsInput(
        max_turns=4, max_speakers=2, tokenizer=None, vocab_size=80, max_length=8, lowercase=True, algorithm="bpe",
        word_dropout=0.0,
    )  # fmt: skip
    inputs = {"image": image_input(), "text": text_input(), "dialogue": turns}
    targets = {"label": ClassLabel(), "number": Number(scale="standard")}
    buckets = Buckets(by="text", window=20, max_tokens=None)
    data = module(lambda: tables, tmp_path, inputs=inputs, targets=targets, bucket=buckets)
    assert data.has_row("train", needs=["text"], targets=["label"]) and len(data.example()) == 2
    survey = survey_of(data, LIMITS)
    assert [(bad.id, bad.row) for bad in survey.bad["train"]] == [("0", 0), ("1", 1)]
    assert [sample.id for sample in (data.split("train")[0, row] for row in range(6)) if not sample.bad] == list("2345")
    assert data.row_facts()["train"] and data.id_digest("train")


def test_the_classes_that_come_most_and_the_rest() -> None:
    counts = {"train": Counter(a=5, b=3, c=1), "val": Counter({"b": 4, "d": 1, NO_CLASS: 9})}
    assert shares(counts, 2) == (["b", "a"], {"train": 1, "val": 1})
