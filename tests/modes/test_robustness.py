"""Tests of a complete run on more than the test split: tables, summary, and the clean figures left as they are."""

import csv
import json
from pathlib import Path

import pytest

from mmtrain.modes.robustness import GroupResult, write_rows
from tests.runs import rows_of, run_tiny
from tests.tiny import ROWS, make_tables

TASKS = ["task=[contrastive,classification]", "trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("robust") / "data")


@pytest.fixture(scope="module")
def done(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robust") / "run"
    assert run_tiny(tables, folder, *TASKS) == 0
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_corruptions_and_groups_are_judged_beside_the_clean_split(
    done: Path, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny(tables, done, *TASKS, "mode=test") == 0
    before, logged = json.loads((done / "summary.json").read_text())["test"], rows_of(done)
    requested = ["test.corruptions=[noise,typos,missing]", "test.severities=[1,5]", "test.group_by=label"]
    assert run_tiny(tables, done, *TASKS, "mode=test", *requested, report=True) == 0
    summary = json.loads((done / "summary.json").read_text())
    assert summary["test"] == before
    assert rows_of(done) == logged
    rows = table(done / "corruptions.csv")
    done_to = {(row["corruption"], row["modality"], row["severity"]) for row in rows}
    assert done_to == {
        (name, m, severity)
        for name, m in (("noise", "image"), ("typos", "text"), ("missing", "image"), ("missing", "text"))
        for severity in ("1", "5")
    }
    assert {row["metric"] for row in summary["corruptions"]} == {
        "contrastive/recall",
        "classification/accuracy",
        "classification/calibration_error",
    }
    for row in rows:
        assert float(row["clean"]) == pytest.approx(before[row["metric"]]["value"])
    alone = [r for r in rows if (r["corruption"], r["severity"], r["metric"]) == ("missing", "5", "contrastive/recall")]
    assert [row["value"] for row in alone] == ["", ""]  # no pair is left
    groups = [row for row in summary["groups"] if row["metric"] == "classification/accuracy"]
    assert {row["group"] for row in groups} == {"bar", "frame", "square"}
    assert sum(row["rows"] for row in groups) <= ROWS["test"]
    chances = {row["chance"] for row in summary["groups"] if row["metric"] == "contrastive/recall"}
    assert all(chance == pytest.approx(before["contrastive/recall"]["chance"], abs=0.1) for chance in chances)
    page = (done / "report.html").read_text()
    assert "Corruptions" in page and "Groups" in page and "worst" in page
    run_tiny(tables, done, *TASKS, "mode=test")
    assert not (done / "corruptions.csv").exists() and not (done / "groups.csv").exists()
    assert "corruptions" not in capsys.readouterr().err


def test_the_same_twice(done: Path, tables: Path) -> None:
    requested = ["mode=test", "test.corruptions=[crop]", "test.severities=[3]"]
    results = []
    for workers in ("0", "1"):
        assert run_tiny(tables, done, *TASKS, *requested, f"data.num_workers={workers}") == 0
        results.append((done / "corruptions.csv").read_text())
    assert results[0] == results[1]


def test_classes_are_told_by_their_names(done: Path, tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tiny(tables, done, *TASKS, "mode=test", "test.zero_shot=label", "test.templates=['a red {}']") == 0
    test = json.loads((done / "summary.json").read_text())["test"]
    assert test["zero_shot_image/class_accuracy"]["chance"] == pytest.approx(1 / 3)
    assert 0 <= test["zero_shot_image/accuracy"]["value"] <= 1
    assert "zero_shot_image/accuracy" in capsys.readouterr().out
    assert run_tiny(tables, done, *TASKS, "mode=test", "test.zero_shot=kind") == 2
    assert "test.zero_shot=kind: the test split has the columns id" in capsys.readouterr().err


def test_what_does_not_concern_the_run_is_refused(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = ["task=[classification]", "task.classification.input=image", "trainer.max_epochs=1"]
    assert run_tiny(tables, tmp_path / "run", *alone, "test.corruptions=[typos]") == 2
    assert "test.corruptions=[typos]: cannot be applied to image" in capsys.readouterr().err


def test_names_of_groups_are_no_formulas(tmp_path: Path) -> None:
    rows = [GroupResult(name, 3, "label/r2", -0.5, None) for name in ("=cmd|'/c calc'!A0", "+1", "-cat", "cat")]
    write_rows(tmp_path / "groups.csv", rows)
    result = table(tmp_path / "groups.csv")
    assert [row["group"] for row in result] == ["'=cmd|'/c calc'!A0", "+1", "'-cat", "cat"]
    assert {row["value"] for row in result} == {"-0.5"}
