"""Files that cannot be read: the run goes on, names exactly those, and stops when there are too many."""

import json
import shutil
from pathlib import Path

import pytest

from mmtrain.build import compose
from mmtrain.data.dataset import bad_row
from mmtrain.errors import ConfigError, SampleError
from mmtrain.modes.run import run
from mmtrain.training.callbacks.quarantine import Quarantine
from mmtrain.types import Bad
from tests.batches import make_batch
from tests.runs import without_report
from tests.tiny import ROWS, TINY_MODEL, make_tables

BAD = {
    "train-0": "cut",
    "train-11": "empty",
    "train-30": "missing",
    "val-1": "text",
    "test-2": "cut",
    "test-7": "missing",
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six files in 72 are not what their rows promise."""
    root = make_tables(tmp_path_factory.mktemp("bad") / "data")
    for name, how in BAD.items():
        path = root / "images" / f"{name.replace('-', '')}.png"
        if how == "missing":
            path.unlink()
        else:
            path.write_bytes({"cut": path.read_bytes()[:40], "empty": b"", "text": b"no picture"}[how])
    return root


def train(tables: Path, folder: Path, *overrides: str) -> int:
    given = ["data=files", f"data.root={tables}", f"run_dir={folder}", *TINY_MODEL, "data.max_bad_fraction=0.2"]
    with without_report():
        return run(compose([*given, *overrides]))


def listed(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def calm(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calm") / "run"
    assert train(tables, folder) == 0
    return folder


def test_exactly_those_are_listed_with_split_file_and_reason(calm: Path) -> None:
    rows = listed(calm)
    assert {row["id"] for row in rows} == set(BAD)
    assert [(row["split"], row["row"]) for row in rows] == sorted((row["split"], row["row"]) for row in rows)
    for row in rows:
        assert row["split"] == str(row["id"]).split("-")[0]
        assert row["file"] == f"images/{str(row['id']).replace('-', '')}.png"
        assert "cannot be read as a picture" in str(row["reason"])
        assert row["type"] in ("UnidentifiedImageError", "FileNotFoundError", "OSError")
    assert json.loads((calm / "summary.json").read_text())["status"] == "done"


def test_the_same_twice_and_with_workers(calm: Path, tables: Path, tmp_path: Path) -> None:
    for name, overrides in (("again", []), ("workers", ["data.num_workers=2"])):
        assert train(tables, tmp_path / name, *overrides) == 0
        assert listed(tmp_path / name) == listed(calm)


def test_a_bad_row_of_the_test_split_is_predicted_as_nothing(calm: Path, tables: Path) -> None:
    assert train(tables, calm, "mode=predict") == 0
    rows = {row["id"]: row for row in map(json.loads, (calm / "predictions.jsonl").read_text().splitlines())}
    assert len(rows) == ROWS["test"]
    bad = rows["test-2"]
    assert set(bad) == {"id", "text", "not_predicted"}
    assert all(reason.startswith("cannot be read: ") for reason in bad["not_predicted"].values())
    assert len(rows["test-0"]) > 2


def test_none_allowed_stops_with_the_list(tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tables, tmp_path / "run", "data.max_bad_fraction=0") == 2
    output = capsys.readouterr().err
    assert f"of {ROWS['train']} samples of train cannot be read; data.max_bad_fraction=0 allows 0" in output
    assert "images/train" in output and "raise data.max_bad_fraction" in output
    assert listed(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


def test_a_resumed_run_goes_on_counting(tables: Path, tmp_path: Path, calm: Path) -> None:
    assert train(tables, tmp_path / "run", "trainer.max_steps=3") == 0
    before = listed(tmp_path / "run")
    assert train(tables, tmp_path / "run", "resume=auto") == 0
    assert listed(tmp_path / "run") == listed(calm)
    assert all(row in listed(tmp_path / "run") for row in before)


def test_a_folder_with_nothing_to_read_is_said_before_training(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tables, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "images")
    lines = [json.loads(line) for line in (tmp_path / "data" / "train.jsonl").read_text().splitlines()]
    rows = [row for row in lines if row["image"]]
    (tmp_path / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train(tmp_path / "data", tmp_path / "run") == 2
    assert "none of the first" in capsys.readouterr().err


def test_ranks_write_into_one_list(tmp_path: Path) -> None:
    first, second = (Quarantine(tmp_path, num_rows={"train": 10}, max_bad_fraction=0.25) for _ in range(2))
    batch = make_batch([1], [1])
    batch.bad = [Bad("b", 7, "b.png", "broken")]
    first._note("train", [batch])
    batch.bad = [Bad("a", 2, "a.png", "missing"), Bad("b", 7, "b.png", "broken")]
    second._note("train", [batch])
    assert [row["id"] for row in listed(tmp_path)] == ["a", "b"]
    batch.bad = [Bad("c", 3, "c.png", "empty")]
    with pytest.raises(
        ConfigError, match=r"3 of 10 samples of train cannot be read; data.max_bad_fraction=0.25 allows 2"
    ):
        first._note("train", [batch])
    first.begin()
    assert not (tmp_path / "quarantine.jsonl").exists()


def test_text_of_a_file_that_no_file_can_hold_is_listed_all_the_same(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path, num_rows={"train": 10}, max_bad_fraction=1.0)
    batch = make_batch([1], [1])
    batch.bad = [bad_row({"id": "half \ud83d"}, 3, SampleError("\ud83d.png", "cannot be read: \x1b[31m"))]
    quarantine._note("train", [batch])
    (row,) = listed(tmp_path)
    assert row == {
        "split": "train",
        "id": "half \\ud83d",
        "row": 3,
        "file": "\\ud83d.png",
        "reason": "cannot be read: \\x1b[31m",
        "type": "SampleError",
    }
