"""A killed sweep is resumed: complete runs are skipped, an incomplete one is resumed from its checkpoint."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmtrain.training.run_folder import is_locked
from mmtrain.training.sweep.records import JobRecord, folders_of, skip_reason, try_lock
from tests.commands import TRAIN, run_command, start_command
from tests.tiny import TINY_MODEL, make_tables

ROOT = Path(__file__).resolve().parents[3]
RUN = ["fusion=sum", "seed=1", "run_dir=out", "resume=auto"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("data") / "tables")


def leave(folder: Path, overrides: list[str], status: str | None = "done", ended: int | None = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    JobRecord(overrides, ended).write(folder)
    if status is not None:
        (folder / "summary.json").write_text(json.dumps({"status": status}))


# ------------------------------------------------------------------------------- one run's folder


def test_a_new_folder_is_run(tmp_path: Path) -> None:
    assert skip_reason(tmp_path, RUN, goes_on=True) is None


@pytest.mark.parametrize("status", ["done", "pruned"])
def test_what_is_done_is_passed_over_when_the_sweep_goes_on(tmp_path: Path, status: str) -> None:
    leave(tmp_path, ["seed=1", "fusion=sum", "run_dir=./out"], status)  # written in another order, before resume=auto
    assert skip_reason(tmp_path, RUN, goes_on=True) == "done before"
    assert skip_reason(tmp_path, RUN, goes_on=False) is None, "the run itself says that its folder is taken"


@pytest.mark.parametrize("status", ["stopped", "failed", None])
def test_what_is_not_done_is_run_again(tmp_path: Path, status: str | None) -> None:
    leave(tmp_path, RUN, status)
    assert skip_reason(tmp_path, RUN, goes_on=True) is None


def test_what_was_killed_while_its_report_was_written_is_run_to_its_end(tmp_path: Path) -> None:
    leave(tmp_path, RUN, "done", ended=None)
    assert skip_reason(tmp_path, RUN, goes_on=True) is None


def test_another_run_is_not_taken_for_this_one(tmp_path: Path) -> None:
    leave(tmp_path, ["fusion=concat", "seed=1"])
    with pytest.raises(ValueError, match="contains the run of fusion=concat, not of fusion=sum seed=1") as raised:
        skip_reason(tmp_path, RUN, goes_on=True)
    assert "\n    fix: resume a sweep with its own command, or set run_dir to another folder" in str(raised.value)


def test_another_run_that_came_to_nothing_gives_way(tmp_path: Path) -> None:
    leave(tmp_path, ["fusion=concat", "seed=1"], None)
    assert skip_reason(tmp_path, RUN, goes_on=False) is None


def test_what_a_crash_has_left_of_the_record_counts_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"overrides": ["se')
    (tmp_path / "summary.json").write_text("")
    assert JobRecord.read(tmp_path) is None and skip_reason(tmp_path, RUN, goes_on=True) is None


def test_a_folder_is_held_by_one_process_and_free_when_that_is_gone(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from mmtrain.training.sweep.records import try_lock
with try_lock(Path({str(tmp_path)!r})) as free:
    print(free, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        assert is_locked(tmp_path)
        with try_lock(tmp_path) as free:
            assert not free
        other.kill()
    assert not is_locked(tmp_path)
    with try_lock(tmp_path) as free:
        assert free


def test_runs_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10", "2", "a/b"):
        leave(tmp_path / name, RUN)
    (tmp_path / "empty").mkdir()
    assert [str(f.relative_to(tmp_path)) for f in folders_of(tmp_path)] == ["2", "10", "a/b"]


# --------------------------------------------------------------------------------- complete sweeps


def sweep(tables: Path, folder: Path, *more: str) -> list[str]:
    own = ["data=files", f"data.root={tables}", *TINY_MODEL, "task=[classification]", "data.num_workers=0"]
    return ["-m", *own, f"run_dir={folder}", *more]


ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}  # joblib gives its runs a share of the cores
GRID = ["fusion=concat,sum", "seed=0,1", "resume=auto", "checkpoint.every_n_steps=1"]


def rows(folder: Path) -> dict[str, dict[str, str]]:
    """sweep.csv by run, without timings."""
    with (folder / "sweep.csv").open(newline="") as file:
        results = list(csv.DictReader(file))
    timings = ("samples_per_second", "seconds")
    return {row["run"]: {name: cell for name, cell in row.items() if name not in timings} for row in results}


def status(folder: Path) -> int | None:
    requested = JobRecord.read(folder)
    assert requested is not None
    return requested.status


@pytest.mark.slow(seconds=90)
def test_a_killed_sweep_goes_on_also_by_two_processes(tables: Path, tmp_path: Path) -> None:
    """And has the table of an uninterrupted one, by joblib."""
    calm, broken = tmp_path / "calm", tmp_path / "broken"
    at_once = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    alone = [
        sys.executable,
        str(TRAIN),
        *sweep(tables, calm, *GRID, *at_once),
    ]  # joblib hangs in a fork
    subprocess.run(alone, check=True, capture_output=True, env=ONE_THREAD)
    process = start_command(*sweep(tables, broken, *GRID), env=ONE_THREAD)
    deadline = time.monotonic() + 120
    while not (broken / "1" / "checkpoints" / "last.ckpt").exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    assert [status(broken / str(n)) for n in range(2)] == [0, None]
    before = (broken / "0" / "summary.json").stat().st_mtime_ns
    files = [tmp_path / "one", tmp_path / "other"]
    both = [start_command(*sweep(tables, broken, *GRID), env=ONE_THREAD, stdout=file) for file in files]
    for process in both:
        process.join(240)
    assert [process.exitcode for process in both] == [0, 0]
    message = "".join(file.read_text() for file in files)
    assert message.count("resuming at step") == 1, "the run that was half done"
    wrote = [line for line in message.splitlines() if line.startswith("writing to ")]
    assert sorted(line.rpartition("/")[2] for line in wrote) == ["2", "3"], "each once"
    assert before == (broken / "0" / "summary.json").stat().st_mtime_ns
    assert run_command(*sweep(tables, broken, *GRID), env=ONE_THREAD).returncode == 0, "nothing is left to do"
    assert rows(calm) == rows(broken) and len(rows(calm)) == 4
    assert {row["status"] for row in rows(calm).values()} == {"done"}
    page = (broken / "sweep.html").read_text()
    assert "python train.py data=files" in page and "Mean over seeds" in page and page.count("<svg") == 1


@pytest.mark.slow(seconds=60)
@pytest.mark.parametrize("launcher", ["basic", "ray"])
def test_the_worst_run_is_the_exit_status(launcher: str, tables: Path, tmp_path: Path) -> None:
    """The others are run all the same."""
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "summary.json").write_text("{}")  # of an unknown run
    command = sweep(tables, tmp_path, "fusion=concat,sum", "trainer.max_steps=2", f"hydra/launcher={launcher}")
    done = run_command(*command, env=ONE_THREAD)
    assert done.returncode == 2 and "already contains a run" in done.stderr
    assert [status(tmp_path / str(n)) for n in range(2)] == [2, 0]


def test_optuna_prunes_and_goes_on(tables: Path, tmp_path: Path) -> None:
    pruner = [
        *("hydra.sweeper.pruner._target_=optuna.pruners.ThresholdPruner", "+hydra.sweeper.pruner.lower=0.7"),
        *("~hydra.sweeper.pruner.n_startup_trials", "~hydra.sweeper.pruner.n_warmup_steps"),
    ]
    command = sweep(tables, tmp_path, "sweep=optimizer", "fusion=concat,sum", "resume=auto", *pruner)
    assert run_command(*command, "hydra.sweeper.n_trials=1", env=ONE_THREAD).returncode == 0
    (first,) = rows(tmp_path).values()
    done = run_command(*command, "hydra.sweeper.n_trials=3", env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    result = rows(tmp_path)
    assert result["0"]["value"] == first["value"] and len(result) == 3 and "Traceback" not in done.stderr
    pruned = [name for name, row in result.items() if row["status"] == "pruned"]
    assert pruned and done.stdout.count("is worse than in other runs") == len([name for name in pruned if name != "0"])
    assert json.loads((tmp_path / pruned[0] / "summary.json").read_text())["steps"] < 12
