"""metrics.csv: one row a step, all digits, on disk at once, and what a resumed or killed run makes of it."""

import csv
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.utilities import rank_zero_only

from mmtrain.errors import WriteError
from mmtrain.io import run_files
from mmtrain.training.loggers.csv import CSVMetrics


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows without their empty cells."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(file)]


def begun(folder: Path, *logged: tuple[int, dict[str, float]]) -> CSVMetrics:
    logger = CSVMetrics(folder, resume_step=None)
    for step, values in logged:
        logger.log_metrics(values, step)
    return logger


def test_values_of_one_step_share_a_row(tmp_path: Path) -> None:
    begun(
        tmp_path,
        (1, {"loss": 0.5, "epoch": 0}),
        (2, {"loss": 0.25, "epoch": 0}),
        (2, {"val/loss": 0.75}),
        (2, {"val/accuracy": 0.5, "loss": 0.125}),
        (3, {"loss": 0.1, "epoch": 1}),
    )
    assert rows_of(tmp_path) == [
        {"step": "1", "epoch": "0", "loss": "0.5"},
        {"step": "2", "epoch": "0", "loss": "0.125", "val/loss": "0.75", "val/accuracy": "0.5"},
        {"step": "3", "epoch": "1", "loss": "0.1"},
    ]


def test_a_new_column_keeps_the_rows_before_it(tmp_path: Path) -> None:
    logger = begun(tmp_path)
    for step in range(20):
        logger.log_metrics({f"column{step}": step, "loss": step / 8}, step)
    result = rows_of(tmp_path)
    assert result == [{"step": str(s), f"column{s}": str(s), "loss": repr(s / 8)} for s in range(20)]
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert header[:2] == ["step", "epoch"] and len(header) == 23


def test_every_call_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    logger = begun(tmp_path)
    assert rows_of(tmp_path) == []
    for step, name in [(1, "a"), (1, "b"), (2, "a"), (2, "c"), (3, "a")]:
        logger.log_metrics({name: 1.0}, step)
        assert rows_of(tmp_path)[-1]["step"] == str(step) and name in rows_of(tmp_path)[-1]
        assert (tmp_path / "metrics.csv").read_bytes().endswith(b"\n")
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_all_digits_are_kept(tmp_path: Path) -> None:
    draw = random.Random(0)
    values = [draw.uniform(-1, 1) * 10 ** draw.randint(-30, 30) for _ in range(50)] + [0.1 + 0.2, 1e-320, -0.0, 1e16]
    begun(tmp_path, *((step, {"value": value}) for step, value in enumerate(values)))
    results = [float(row["value"]) for row in rows_of(tmp_path)]
    assert [v.hex() for v in results] == [v.hex() for v in values]


def test_numbers_that_are_none_can_be_seen(tmp_path: Path) -> None:
    begun(tmp_path, (1, {"loss": math.nan, "up": math.inf, "down": -math.inf, "tensor": torch.tensor(float("nan"))}))
    assert rows_of(tmp_path) == [{"step": "1", "loss": "nan", "up": "inf", "down": "-inf", "tensor": "nan"}]


def test_whole_numbers_stay_whole_and_tensors_are_numbers(tmp_path: Path) -> None:
    begun(tmp_path, (1, {"epoch": 3, "count": torch.tensor(2.0), "third": torch.tensor(1 / 3, dtype=torch.float64)}))
    assert rows_of(tmp_path) == [{"step": "1", "epoch": "3", "count": "2.0", "third": repr(1 / 3)}]


def test_a_resumed_run_drops_later_rows_and_goes_on(tmp_path: Path) -> None:
    begun(tmp_path, *((step, {"loss": step / 8}) for step in range(1, 8)))
    logger = CSVMetrics(tmp_path, resume_step=4)
    logger.log_metrics({"loss": 9.0}, 5)
    logger.log_metrics({"loss": 9.5, "val/loss": 1.0}, 6)
    assert [(row["step"], row["loss"]) for row in rows_of(tmp_path)] == [
        ("1", "0.125"),
        ("2", "0.25"),
        ("3", "0.375"),
        ("4", "0.5"),
        ("5", "9.0"),
        ("6", "9.5"),
    ]


def test_a_run_that_was_stopped_has_the_same_file_as_one_that_was_not(tmp_path: Path) -> None:
    def log(logger: CSVMetrics, steps: range) -> None:
        for step in steps:
            logger.log_metrics({"loss": 1 / step, "epoch": step // 4}, step)
            if step % 4 == 0:
                logger.log_metrics({"val/loss": 2 / step}, step)

    log(begun(tmp_path / "calm"), range(1, 13))
    for stop in range(13):
        folder = tmp_path / str(stop)
        log(begun(folder), range(1, min(stop + 3, 13)))  # it logged a little more than its checkpoint has
        log(CSVMetrics(folder, resume_step=stop), range(stop + 1, 13))
        assert rows_of(folder) == rows_of(tmp_path / "calm"), stop


def test_testing_a_checkpoint_of_a_finished_run_keeps_what_came_after_it(tmp_path: Path) -> None:
    begun(tmp_path, *((step, {"loss": step / 8}) for step in (1, 3, 5, 7)))
    CSVMetrics(tmp_path, resume_step=3).log_metrics({"test/loss": 0.5, "epoch": 0}, 3)
    CSVMetrics(tmp_path, resume_step=4).log_metrics({"test/loss": 0.25}, 4)
    assert [(row["step"], row.get("loss"), row.get("test/loss")) for row in rows_of(tmp_path)] == [
        ("1", "0.125", None),
        ("3", "0.375", "0.5"),
        ("4", None, "0.25"),
        ("5", "0.625", None),
        ("7", "0.875", None),
    ]


def test_a_test_does_not_change_the_epoch_of_its_row(tmp_path: Path) -> None:
    begun(
        tmp_path,
        (1, {"loss": 0.5, "epoch": 0}),
        (2, {"loss": 0.25, "epoch": 1}),
        (2, {"val/loss": 0.75, "epoch": 1}),
        (2, {"test/loss": 0.5, "epoch": 2}),
    )
    assert [row["epoch"] for row in rows_of(tmp_path)] == ["0", "1"]
    CSVMetrics(tmp_path, resume_step=2).log_metrics({"test/loss": 0.25, "epoch": 0}, 2)
    assert [(row["epoch"], row.get("test/loss")) for row in rows_of(tmp_path)] == [("0", None), ("1", "0.25")]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path: Path, cut: int) -> None:
    begun(tmp_path, *((step, {"loss": step / 3}) for step in (1, 2)), (3, {"loss": 0.123456}))
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-cut])
    logger = CSVMetrics(tmp_path, resume_step=3)
    logger.log_metrics({"loss": 4.0}, 4)
    assert [(row["step"], row["loss"]) for row in rows_of(tmp_path)] == [
        ("1", repr(1 / 3)),
        ("2", repr(2 / 3)),
        ("4", "4.0"),
    ]


def test_a_new_run_begins_a_new_file_and_a_resumed_one_needs_none(tmp_path: Path) -> None:
    begun(tmp_path, (1, {"loss": 1.0}))
    begun(tmp_path, (1, {"other": 2.0}))
    assert rows_of(tmp_path) == [{"step": "1", "other": "2.0"}]
    CSVMetrics(tmp_path / "new", resume_step=7).log_metrics({"loss": 1.0}, 8)
    assert rows_of(tmp_path / "new") == [{"step": "8", "loss": "1.0"}]


def test_only_the_first_rank_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = CSVMetrics(tmp_path / "run", resume_step=None)
    logger.log_metrics({"loss": 1.0}, 1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "tail", [bytes(60), bytes(60) + b"\n", b"3,0,0.\0\0\0\r\n", b"3,0\r\n", b"3,0,1,2\r\n", b"x,0,1\r\n"]
)
def test_damaged_rows_are_dropped_with_a_note(tail: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(tmp_path, *((step, {"loss": step / 8}) for step in (1, 2)))
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes() + tail)
    logger = CSVMetrics(tmp_path, resume_step=3)
    assert capsys.readouterr().err == f"{path}: 1 of 3 lines cannot be read and is skipped\n"
    logger.log_metrics({"loss": 4.0, "val/loss": 1.0}, 4)
    assert [(row["step"], row["loss"]) for row in rows_of(tmp_path)] == [("1", "0.125"), ("2", "0.25"), ("4", "4.0")]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing; its rows up to step 3 are lost"),
        (b"", "is damaged: no header; its rows up to step 3 are lost"),
        (bytes(90), "is damaged: no header; its rows up to step 3 are lost"),
    ],
)
def test_rows_that_are_lost_are_noted(
    content: bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.csv"
    if content is not None:
        path.write_bytes(content)
    CSVMetrics(tmp_path, resume_step=3).log_metrics({"loss": 4.0}, 4)
    assert f"{path} {words}" in capsys.readouterr().err
    assert [row["step"] for row in rows_of(tmp_path)] == ["4"]


def test_a_row_that_does_not_fit_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = begun(tmp_path, (1, {"loss": 0.5, "val/loss": 0.25}), (2, {"loss": 0.125}))
    before, seen = (tmp_path / "metrics.csv").read_bytes(), run_files._overwrite

    def half(file: Any, start: int, content: bytes) -> None:
        if content.endswith(b"0.75\r\n"):
            seen(file, start, content[:-5])
            raise OSError(28, "No space left on device")
        seen(file, start, content)

    monkeypatch.setattr(run_files, "_overwrite", half)
    with pytest.raises(WriteError, match="No space left on device"):
        logger.log_metrics({"val/loss": 0.75}, 2)
    assert (tmp_path / "metrics.csv").read_bytes() == before
