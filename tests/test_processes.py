"""The command as real processes: two ranks, SIGTERM, a wheel in a user's own folder."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.commands import run_command, start_command
from tests.ranks import on_ranks
from tests.runs import PLAIN, RANKS, as_torchrun_starts, run_tiny, weights_of
from tests.tiny import TINY_MODEL, make_tables

ROOT = Path(__file__).resolve().parent.parent
TASKS = "task=[contrastive,classification]"

HAS_PROC = sys.platform == "linux"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("processes") / "data")


def arguments(tables: Path, folder: Path, *overrides: str) -> list[str]:
    requested = [o.split("=")[0] for o in overrides]
    tiny = [o for o in TINY_MODEL if o.split("=")[0] not in requested]  # no key twice: that is a fault
    return ["data=files", f"data.root={tables}", f"run_dir={folder}", *tiny, *overrides]


def train(tables: Path, folder: Path, *overrides: str, forked_ranks: bool = False) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments(tables, folder, *overrides), forked_ranks=forked_ranks)


def figures(folder: Path) -> dict[str, dict[str, float]]:
    return json.loads((folder / "summary.json").read_text())["test"]


@pytest.mark.parametrize("eval_batch_size", [8, 16])
def test_two_processes_train_and_test_as_one(eval_batch_size: int, tables: Path, tmp_path: Path) -> None:
    """The test split has 15 rows, in batches of 8, or in one, so that the second process has none of them."""
    size = f"data.eval_batch_size={eval_batch_size}"
    forked = eval_batch_size == 16  # real ones once
    done = train(tables, tmp_path / "two", size, *RANKS, forked_ranks=forked)
    assert done.returncode == 0, done.stderr
    with_two = figures(tmp_path / "two")
    again = train(tables, tmp_path / "two", size, "mode=test", "trainer=cpu")
    assert again.returncode == 0, again.stderr
    with_one = figures(tmp_path / "two")
    assert with_one.keys() == with_two.keys()
    for name, entry in with_two.items():
        assert with_one[name]["value"] == pytest.approx(entry["value"], abs=1e-6), name


TUNINGS = {
    "cache": [
        "task=[contrastive,matching,masked_text,classification]",
        "trainer.gradient_cache=true",
        "trainer.accumulate_grad_batches=2",
    ],
    "tuning": [TASKS, "encoder.image.freeze_until=4", "encoder.text.lr_mult=0.5"],
    "ogm_ge": [TASKS, "modality_balance=ogm_ge"],
    "gradient_blend": [TASKS, "modality_balance=gradient_blend"],
}


def runs_of_rank(rank: int, tables: Path, folder: Path) -> None:
    as_torchrun_starts(rank)
    for name, tuning in TUNINGS.items():
        assert run_tiny(tables, folder / name / "two", *PLAIN, *tuning, *RANKS) == 0, name


@pytest.mark.slow(seconds=40)
def test_two_processes_take_the_steps_of_one(tables: Path, tmp_path: Path) -> None:
    """One global batch, no dropout: the weights after an epoch agree, for any number of processes.

    With a gradient cache also where each process takes its part in two micro-batches.
    """
    on_ranks(2, runs_of_rank, tables, tmp_path, seconds=300)
    for name, tuning in TUNINGS.items():
        full = [word for word in tuning if not word.startswith("trainer.accumulate")]
        assert run_tiny(tables, tmp_path / name / "one", *PLAIN, *full) == 0
        one, two = weights_of(tmp_path / name / "one"), weights_of(tmp_path / name / "two")
        for part, weight in one.items():
            torch.testing.assert_close(two[part], weight, rtol=1e-4, atol=1e-5, msg=f"{name} {part}")


@pytest.mark.slow(seconds=40)
@pytest.mark.parametrize(("ranks", "to_all"), [([], False), (RANKS, False), (["data.num_workers=1"], True)])
def test_sigterm_leaves_a_checkpoint_to_go_on_from(
    ranks: list[str], to_all: bool, tables: Path, tmp_path: Path
) -> None:
    """A cluster sends it to every process of a job: workers go on until the step is done."""
    folder = tmp_path / "run"
    words = arguments(tables, folder, *ranks, "trainer.max_epochs=2000")
    process = start_command(*words, new_session=True)
    assert process.pid is not None
    deadline = time.monotonic() + 200
    listening: set[str] = set()
    while len(_steps(folder)) < 9 and time.monotonic() < deadline:
        listening |= _listening(process.pid) if HAS_PROC else set()
        time.sleep(0.1)
    os.kill(-process.pid if to_all else process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143
    assert listening == ({"127.0.0.1"} if ranks == RANKS and HAS_PROC else set()), "others of the network reach nothing"
    stopped_at = _steps(folder)[-1]
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == stopped_at
    assert json.loads((folder / "summary.json").read_text())["status"] == "stopped"
    longer = ["trainer.max_epochs=2000", f"trainer.max_steps={stopped_at + 3}", "resume=auto"]
    more = train(tables, folder, *ranks, *longer)
    assert more.returncode == 0, more.stderr
    assert f"resuming at step {stopped_at}" in more.stdout
    assert _steps(folder) == list(range(1, stopped_at + 4))
    assert (folder / "report.html").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_when_one_of_several_workers_dies_the_run_ends_and_leaves_none(tables: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = arguments(tables, folder, "data.num_workers=2", "trainer.max_epochs=2000")
    start = [sys.executable, str(ROOT / "train.py")]
    process = subprocess.Popen([*start, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while len(_steps(folder)) < 9 and time.monotonic() < deadline:
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert "a loading process" in process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ranks_that_share_weights_listen_on_the_loopback_interface_alone(tables: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start_command(*arguments(tables, folder, "trainer=fsdp", *RANKS[1:], "trainer.max_epochs=2000"))
    assert process.pid is not None
    deadline = time.monotonic() + 200
    results: set[str] = set()
    while len(_steps(folder)) < 2 and time.monotonic() < deadline:
        results |= _listening(process.pid)
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143
    assert results == {"127.0.0.1"}


def _listening(pid: int) -> set[str]:
    """The addresses that a process and its descendants listen on."""
    processes, sockets = [pid], set()
    for one in processes:
        with suppress(OSError):
            processes += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
            for handle in Path(f"/proc/{one}/fd").iterdir():
                with suppress(OSError):
                    sockets.add(str(handle.readlink()))
    results = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                address = bytes.fromhex(local.partition(":")[0])[::-1]
                results.add(".".join(map(str, address)) if len(address) == 4 else address.hex())
    return results


def _steps(folder: Path) -> list[int]:
    if not (folder / "metrics.csv").exists():
        return []
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["step"].isdigit() and row["train/loss"]]


MINE = """
import torch
from torch import nn
from mmtrain.types import Features


class MyEncoder(nn.Module):
    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.net = nn.Conv2d(3, dim, 4, stride=4)

    def forward(self, values, mask=None):
        tokens = self.net(values).flatten(2).transpose(1, 2)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))
"""


def test_a_wheel_serves_somebodys_own_encoder(tables: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    site, home = tmp_path / "site", tmp_path / "home"
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(site)
    (home / "conf" / "encoder" / "image").mkdir(parents=True)
    (home / "conf" / "encoder" / "image" / "mine.yaml").write_text("_target_: mine.MyEncoder\ndim: ${dim}\n")
    (home / "mine.py").write_text(MINE)
    overrides = [o for o in TINY_MODEL if not o.startswith(("encoder.image", "trainer.max_epochs"))]
    start = [sys.executable, "-P", "-c", "from mmtrain.cli.main import main; main()", "--config-dir", "conf"]
    overrides += ["encoder/image=mine", "data=files", f"data.root={tables}", "run_dir=out", "trainer.max_epochs=1"]
    done = subprocess.run(
        [*start, *overrides],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "MyEncoder" in done.stdout
    assert json.loads((home / "out" / "summary.json").read_text())["status"] == "done"
