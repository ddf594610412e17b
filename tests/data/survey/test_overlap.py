"""What splits share is found by content, under any name, and nothing more is read than may be."""

from pathlib import Path

from mmtrain.data.survey.overlap import Overlap, normalize_text, shared_files

ROOM = 1 << 20


def test_texts_are_compared_without_case_and_spaces() -> None:
    assert normalize_text(" A\n big  Straße ") == normalize_text("a big STRASSE")


def test_files_of_equal_content_are_found_under_other_names_and_in_cells(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"one"), ("d", b"ten"), ("e", b"longer")):
        (tmp_path / name).write_bytes(content)
    cells = {
        "train": [("1", "a"), ("2", "b"), ("3", "gone"), ("4", "a")],
        "val": [("5", {"bytes": b"one", "path": None}), ("6", "d"), ("7", "gone"), ("8", [0.1, 0.2])],
        "test": [("9", ["c", "e"])],
    }
    result = shared_files(cells, dict.fromkeys(cells, tmp_path), most_bytes=ROOM)
    assert result.complete
    assert result.found == [Overlap("a", {"train": ["1", "4"], "val": ["5"], "test": ["9"]})]


def test_the_same_content_twice_in_one_split_is_no_overlap(tmp_path: Path) -> None:
    cells = {"train": [("1", b"x"), ("2", b"x")], "val": [("3", b"y")]}
    result = shared_files(cells, dict.fromkeys(cells, tmp_path), most_bytes=ROOM)
    assert result.found == []


def test_it_stops_at_its_limit_and_says_so(tmp_path: Path) -> None:
    cells = {"train": [("1", b"xxx"), ("2", b"yyy")], "val": [("3", b"xxx"), ("4", b"yyy")]}
    result = shared_files(cells, dict.fromkeys(cells, tmp_path), most_bytes=4)
    assert not result.complete and result.found == []
