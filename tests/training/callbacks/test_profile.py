"""Where the time of steps goes, by a clock that the test winds, and in a real run, which it does not change."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from mmtrain.training.callbacks.profile import DATA, FIRST, REST, TIMED, TRACED, Profile, SpanProfiler, Spans
from tests.batches import random_batch
from tests.runs import assert_same_run, run_tiny
from tests.steps import loader, make_lit, make_trainer
from tests.tiny import make_tables


def test_of_nested_spans_the_inner_one_counts() -> None:
    now, waits = [0.0], [0]

    def wait() -> None:
        waits[0] += 1

    spans = Spans(wait, lambda: now[0])
    spans.start("outer")
    now[0] += 1.0
    spans.start("inner")
    now[0] += 10.0
    spans.start("outer")  # again, further in
    now[0] += 100.0
    spans.stop()
    spans.stop()
    now[0] += 1000.0
    spans.stop()
    now[0] += 1e6  # outside of every span
    spans.start("inner")
    now[0] += 1e4
    spans.stop()
    assert dict(spans.seconds) == {"outer": 1101.0, "inner": 10010.0}
    assert waits[0] == 8


def test_an_action_that_fails_ends_its_span_and_others_have_none() -> None:
    profiler, spans = SpanProfiler(), Spans(lambda: None)
    with profiler.profile("backward"):
        pass
    profiler.begin(spans)
    with pytest.raises(ZeroDivisionError), profiler.profile("backward"):
        raise ZeroDivisionError
    with profiler.profile("run_training_batch"), profiler.profile("optimizer"):
        pass
    profiler.end()
    with profiler.profile("optimizer"):
        assert list(spans.seconds) == ["backward", "optimizer"]


def test_a_run_is_profiled_and_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = make_tables(tmp_path / "tables")
    plain = ["trainer.max_epochs=4", "task=[contrastive,classification]"]  # 24 steps
    assert FIRST + TIMED + TRACED < 24
    assert run_tiny(tables, tmp_path / "plain", *plain) == 0
    capsys.readouterr()
    assert run_tiny(tables, tmp_path / "seen", *plain, "trainer.profile=true") == 0
    assert "time of a step: " in capsys.readouterr().out
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


@pytest.mark.parametrize("num_steps", [6, 12, 15, 16, 40])
def test_a_short_run_has_the_times_of_its_steps(
    num_steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profiled(num_steps, tmp_path)
    with (tmp_path / "profile.csv").open(newline="") as file:
        rows = {row["part"]: row for row in csv.DictReader(file)}
    assert {"fusion", "backward", "optimizer", REST} <= rows.keys()
    assert sum(float(row["share"] or 0) for row in rows.values()) == pytest.approx(1.0, abs=0.01)
    assert (tmp_path / "trace.json.gz").exists() == (num_steps > FIRST + TIMED)
    out = capsys.readouterr().out
    assert "time of a step: " in out
    message = f"profile of {min(num_steps - FIRST, TIMED)} timed steps; a complete profile needs 17 steps"
    assert (message in out) == (num_steps < FIRST + TIMED + TRACED)


def test_a_run_without_a_timed_step_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profiled(FIRST, tmp_path)
    assert not (tmp_path / "profile.csv").exists()
    out = capsys.readouterr().out
    assert "no profile: the first 5 steps are not timed; steps of this run: 5" in out
    assert "fix: train 17 steps or more" in out


def profiled(num_steps: int, folder: Path) -> None:
    profile = Profile(folder)
    trainer = make_trainer(folder, callbacks=[profile], profiler=profile.profiler, max_epochs=1)
    trainer.fit(make_lit(), train_dataloaders=loader([[random_batch(0)]] * num_steps))
