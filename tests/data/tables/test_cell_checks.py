"""What the first rows say of a column: what it is not, files that are not there, texts that are too long."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmtrain.data.inputs.audio import AudioInput
from mmtrain.data.inputs.text_checks import cut_texts
from mmtrain.data.tables.cell_checks import FIRST_ROWS, check_cells, read_as
from mmtrain.data.targets.label import ClassLabel
from mmtrain.data.targets.text import TextTarget
from mmtrain.errors import ConfigError
from tests.data.parts import fitted_text_input, image_input, text_input


def audio_input() -> AudioInput:
    return AudioInput(sample_rate=8000, max_seconds=1.0, noise=0.0, time_mask=0.0, freq_mask=0.0)


def check(part: Any, *cells: Any, folder: Path = Path("/nowhere")) -> None:
    check_cells("x", read_as(part), cells, column="c", where="t.csv", folder=folder)


def refused(part: Any, *cells: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(part, *cells)
    return str(caught.value)


@pytest.mark.parametrize(
    ("part", "cell", "what"),
    [
        (text_input(), {"a": 1}, "{'a': 1}, which is no text"),
        (text_input(), b"raw", "3 bytes, which is no text"),
        (text_input(), ["a", {"a": 1}], "which is no text"),
        (TextTarget(text=text_input(algorithm="wordpiece"), keep_references=False), {"a": 1}, "which is no text"),
        (ClassLabel(), ["a", "b"], "['a', 'b'], which is no class"),
        (ClassLabel(), {"a": 1}, "which is no class"),
        (image_input(), 1.5, "1.5, which is no picture"),
        (image_input(), True, "which is no picture"),
        (image_input(), {"x": 1}, "which is no picture"),
        (audio_input(), 3, "3, which is no sound"),
    ],
)
def test_a_column_of_something_else_is_named_with_what_it_holds(part: Any, cell: Any, what: str) -> None:
    first, fix = refused(part, None, "", cell).split("\n")
    assert first.startswith("t.csv: the column c holds ") and what in first
    assert fix.startswith("    name ") and "data.columns.x" in fix


def test_several_classes_a_row_are_for_another_task() -> None:
    assert refused(ClassLabel(), ["a"]).endswith(
        "by data.columns.x, or learn several by task=multilabel data.columns.labels=c"
    )


def test_several_pictures_a_row_are_for_another_input() -> None:
    first, fix = refused(image_input(), ["a.png", "b.png"]).split("\n")
    assert "['a.png', 'b.png'], which is no single picture" in first
    assert "input@data.inputs.image=images encoder/image=pictures" in fix and "data.columns.x" in fix


def test_a_list_of_one_path_is_that_path(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"...")
    check(image_input(), ["a.png"], ["b.png"], folder=tmp_path)
    assert "none of the first 2 files is there" in refused(image_input(), ["a.png"], ["b.png"])


@pytest.mark.parametrize(
    ("part", "cell"),
    [
        (text_input(), "a"),
        (text_input(), 1984),
        (text_input(), ["a", None]),
        (ClassLabel(), "a"),
        (ClassLabel(), 1.5),
        (ClassLabel(), True),
        (image_input(), b"..."),
        (image_input(), {"bytes": b"...", "path": None}),
        (image_input(), [[0, 255], [255, 0]]),
        (audio_input(), [0.0, 0.5]),
        (audio_input(), {"array": [0.0], "sampling_rate": 8000}),
        (text_input(), None),
    ],
)
def test_what_may_be_right_is_left_to_whoever_reads_it(part: Any, cell: Any) -> None:
    check(part, cell)


@pytest.mark.parametrize(
    ("part", "bad", "good"),
    [
        (text_input(), {"a": 1}, "a"),
        (ClassLabel(), ["a", "b"], "a"),
        (image_input(), 1.5, b"..."),
        (audio_input(), {"sampling_rate": 8000}, {"array": [0.0], "sampling_rate": 8000}),
    ],
)
def test_one_bad_cell_among_good_ones_stops_nothing(part: Any, bad: Any, good: Any) -> None:
    check(part, bad, bad, good, bad)
    refused(part, bad, bad)


def test_files_of_which_none_is_there_are_named_with_the_folder(tmp_path: Path) -> None:
    folder = "/nowhere"
    assert refused(image_input(), "a.png", None, "b" * 300) == (
        f"t.csv: of the column c none of the first 2 files is there, such as {folder}/a.png\n"
        f"    correct the paths, which start from {folder}, or name the column of pictures by data.columns.x"
    )
    assert "the only file is not there" in refused(audio_input(), {"bytes": None, "path": "a.wav"})
    (tmp_path / "there.png").touch()
    check(image_input(), "a.png", "b.png", "there.png", folder=tmp_path)


@pytest.mark.parametrize("written", ["images/a.png ", "images\\a.png", "images/A.PNG", "old/a.png"])
def test_the_file_that_was_meant_is_named(tmp_path: Path, written: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    with pytest.raises(ConfigError) as caught:
        check(image_input(), written, folder=tmp_path)
    shown = repr(written) if written.endswith(" ") else written
    assert f"images/a.png in place of {shown}" in str(caught.value)


def test_no_more_than_the_head_is_read() -> None:
    def cells(first: Any, rows: int) -> Iterator[Any]:
        yield first
        yield from itertools.repeat("a b", rows - 1)
        raise AssertionError("read on")

    check_cells("x", "image", cells(b"...", 1), column="c", where="t.csv", folder=Path())
    reader = fitted_text_input()
    assert list(cut_texts("k", reader, cells("a b", FIRST_ROWS), where="t.csv", num_rows=10**6)) == []
    assert len(list(cut_texts("k", reader, cells("a " * 3_000_000, 2), where="t.csv", num_rows=10**6))) == 1


def test_texts_that_are_cut_are_counted_on_the_first_rows() -> None:
    reader = fitted_text_input(max_length=5)
    words = [["a red cat", " ".join(["cat"] * (2 + number % 4))] for number in range(2000)]
    assert list(cut_texts("data.inputs.text", reader, words, where="t.csv", num_rows=2000)) == [
        "t.csv: 500 of the first 1,000 rows have a text that is longer than data.inputs.text.max_length = 5 tokens:"
        " its end is cut (the longest has 7)\n"
        "    set data.inputs.text.max_length to 7 for all, if the encoder has so many positions"
    ]
    rare = [*["a red red cat"] * 200, *["cat " * 38] * 1]
    (note,) = cut_texts("k", reader, rare, where="t.csv", num_rows=201)
    assert "201 of 201 rows" in note and "set k.max_length to 6 for 99 of 100 rows, or to 40 for all, if" in note
    assert list(cut_texts("k", reader, ["a red cat", None, ""], where="t.csv", num_rows=3)) == []


def test_measuring_leaves_the_tokenizer_that_cuts_as_it_was() -> None:
    reader = fitted_text_input(max_length=4)
    list(cut_texts("k", reader, ["a red cat"], where="t.csv", num_rows=1))
    assert len(reader.load("a red cat", Path(), seed=0, train=False)[0]) == 4
