"""Where the time of steps goes, by a clock that the test winds, and in a real run, which it does not change."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from mmtrain.callbacks.profile import DATA, FIRST, REST, TIMED, TRACED, Spans
from tests.runs import assert_same_run, run_tiny
from tests.tiny import make_tables


def test_of_nested_spans_the_inner_one_counts() -> None:
    now, waits = [0.0], [0]

    def wait() -> None:
        waits[0] += 1

    spans = Spans(wait, lambda: now[0])
    with spans("outer"):
        now[0] += 1.0
        with spans("inner"):
            now[0] += 10.0
            with spans("outer"):  # again, further in
                now[0] += 100.0
        now[0] += 1000.0
    now[0] += 1e6  # nobody's
    with spans("inner"):
        now[0] += 1e4
    assert dict(spans.seconds) == {"outer": 1101.0, "inner": 10010.0}
    assert waits[0] == 8


def test_a_part_that_fails_ends_its_span() -> None:
    spans = Spans(lambda: None)
    with pytest.raises(ZeroDivisionError), spans("part"):
        raise ZeroDivisionError
    assert list(spans.seconds) == ["part"]


def test_a_run_is_profiled_and_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = make_tables(tmp_path / "tables")
    plain = ["trainer.max_epochs=4", "task=[contrastive,classification]"]  # 24 steps
    assert FIRST + TIMED + TRACED < 24
    assert run_tiny(tables, tmp_path / "plain", *plain) == 0
    capsys.readouterr()
    assert run_tiny(tables, tmp_path / "seen", *plain, "trainer.profile=true") == 0
    assert "where a step's" in capsys.readouterr().out
    assert_same_run(tmp_path / "plain", tmp_path / "seen")
    with (tmp_path / "seen" / "profile.csv").open(newline="") as file:
        rows = {row["part"]: row for row in csv.DictReader(file)}
    parts = {"encoder.image", "encoder.text", "fusion", "task.contrastive", "task.classification"}
    assert rows.keys() - {"communication, within the others"} == parts | {DATA, REST, "backward", "optimizer"}
    assert sum(float(row["share"] or 0) for row in rows.values()) == pytest.approx(1.0, abs=0.01)
    assert all(float(row["seconds_per_step"]) > 0 for name, row in rows.items() if not name.startswith("communication"))
    with gzip.open(tmp_path / "seen" / "trace.json.gz", "rt") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"backward", "optimizer", "fusion", "encoder.image"} <= names


def test_a_run_that_is_shorter_leaves_none(tmp_path: Path) -> None:
    tables = make_tables(tmp_path / "tables")
    assert run_tiny(tables, tmp_path / "short", "trainer.max_steps=3", "trainer.profile=true") == 0
    assert not (tmp_path / "short" / "profile.csv").exists()
