"""Several processes of one run: their common status, forwarded signals, and no process that remains.

The ranks are real processes; they run a substitute for `mmtrain.modes.run` that does what its plan says.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtrain.cli import launch as launching
from mmtrain.cli.launch import launch, private_folder

ROOT = Path(__file__).parents[2]
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path

plans = Path(sys.argv[1])
rank = os.environ["RANK"]
plan = json.loads(plans.read_text())[int(rank)]
def leave(signum, frame):
    plans.with_suffix(f".{rank}.signal").write_text(str(signum))
    if "on_signal" in plan:
        os._exit(plan["on_signal"])
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, leave)
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "PYTHONPATH")
names += ("MMTRAIN_RENDEZVOUS", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
said = {name: os.environ[name] for name in names} | {"pid": os.getpid()}
done = plans.with_suffix(f".{rank}.part")
done.write_text(json.dumps(said))
done.rename(plans.with_suffix(f".{rank}.json"))
deadline = time.monotonic() + plan.get("seconds", 0)
while time.monotonic() < deadline:
    time.sleep(0.01)
if "kill" in plan:
    os.kill(os.getpid(), plan["kill"])
os._exit(plan["status"])
"""
# A parent of its own, to send signals to.
PARENT = """
import sys
from pathlib import Path
from mmtrain.cli.launch import launch
sys.path[:] = [sys.argv[2], *(p for p in sys.path if p and Path(p).resolve() != Path(sys.argv[3]))]
sys.exit(launch(Path(sys.argv[1]), 2))
"""
FOREVER = {"status": 0, "seconds": 120}


@pytest.fixture
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes the file with a plan for each rank."""
    package = tmp_path / "elsewhere" / "mmtrain"
    (package / "modes").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "modes" / "__init__.py").touch()
    (package / "modes" / "run.py").write_text(STAND_IN)
    others = [p for p in sys.path if p and Path(p).resolve() != ROOT]
    monkeypatch.setattr(sys, "path", [str(package.parent), *others])

    def write(*each: dict[str, Any]) -> Path:
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(each))
        return path

    return write


def said(plan: Path, rank: int, seconds: float = 60) -> dict[str, Any]:
    """What a rank wrote when it had started."""
    path, deadline = plan.with_suffix(f".{rank}.json"), time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"rank {rank} did not start"
        time.sleep(0.01)
    return json.loads(path.read_text())


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ranks_join_as_if_torchrun_had_started_them(
    plans: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    sys.path.append("/other/classes")
    plan = plans({"status": 0}, {"status": 0}, {"status": 0})
    assert launch(plan, 3) == 0
    ranks = [said(plan, rank) for rank in range(3)]
    assert [r["RANK"] for r in ranks] == [r["LOCAL_RANK"] for r in ranks] == ["0", "1", "2"]
    assert {r["WORLD_SIZE"] for r in ranks} == {"3"} and {r["MASTER_ADDR"] for r in ranks} == {"127.0.0.1"}
    assert {r["MMTRAIN_RENDEZVOUS"] for r in ranks} == {str(plan.with_name("rendezvous"))}
    assert {(r["GLOO_SOCKET_IFNAME"], r["NCCL_SOCKET_IFNAME"]) for r in ranks} == {("lo", "=lo")}
    assert {r["OMP_NUM_THREADS"] for r in ranks} == {"2"}
    assert all("/other/classes" in r["PYTHONPATH"].split(os.pathsep) for r in ranks)


def test_threads_that_were_set_stay(plans: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    plan = plans({"status": 0})
    assert launch(plan, 1) == 0 and said(plan, 0)["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("each", "status"),
    [
        (({"status": 2}, {"status": 2}), 2),
        (({"status": 143}, {"status": 143, "seconds": 0.5}), 143),
        (({"status": 0}, {"status": 1, "seconds": 0.3}), 1),
        (({"status": 1, "seconds": 1.0}, {"status": 3}), 3),  # the first to fail
        (({"status": 0, "seconds": 0.2}, {"status": 0, "kill": signal.SIGKILL}), 128 + 9),
        (({"status": 0, "kill": signal.SIGSEGV}, {"status": 0}), 128 + 11),
        (({"status": 1}, {"status": 2, "seconds": 1.0}), 2),  # the other is gone, says the first one
    ],
)
def test_the_first_failure_is_the_status(
    plans: Callable[..., Path], each: tuple[dict[str, Any], ...], status: int
) -> None:
    assert launch(plans(*each), 2) == status


def test_when_one_fails_the_others_are_ended(plans: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "GRACE_SECONDS", 0.5)
    plan = plans(FOREVER, {"status": 7, "seconds": 2})
    started = time.monotonic()
    assert launch(plan, 2) == 7
    assert time.monotonic() - started < 40
    assert not is_running(said(plan, 0)["pid"])


def test_the_others_get_a_moment_to_end_by_themselves(plans: Callable[..., Path]) -> None:
    plan = plans({"status": 0, "seconds": 1.5}, {"status": 4})
    assert launch(plan, 2) == 4
    assert not plan.with_suffix(".0.signal").exists()


def test_handlers_are_put_back(plans: Callable[..., Path]) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    launch(plans({"status": 0}), 1)
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_folder_of_the_ranks_is_private_and_goes_with_its_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching.tempfile, "tempdir", str(tmp_path))
    with private_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        with private_folder() as other:
            assert folder.is_dir() and other.is_dir() and other != folder
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_launcher_left_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"{launching.FOLDERS}link").symlink_to(tmp_path / "elsewhere")
    code = (
        "import os; from mmtrain.cli.launch import private_folder; given = private_folder();"
        " (given.__enter__() / 'config.yaml').touch()"
    )
    killed = subprocess.run(
        [sys.executable, "-c", f"{code}; os.kill(os.getpid(), 9)"], env=os.environ | {"TMPDIR": str(tmp_path)}, cwd=ROOT
    )
    assert killed.returncode == -9 and len(list(tmp_path.glob("*/config.yaml"))) == 1
    with private_folder():
        assert list(tmp_path.glob("*/config.yaml")) == []
    assert {p.name for p in tmp_path.iterdir()} == {"elsewhere", f"{launching.FOLDERS}link"}
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_every_rank_and_nobody_is_left(
    plans: Callable[..., Path], signum: signal.Signals, status: int
) -> None:
    plan = plans(*({"status": 0, "seconds": 120, "on_signal": status} for _ in range(2)))
    command = [sys.executable, "-c", PARENT, str(plan), sys.path[0], str(ROOT)]
    parent = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT)
    pids = [said(plan, rank)["pid"] for rank in range(2)]
    parent.send_signal(signum)
    assert parent.wait(timeout=60) == status
    assert [plan.with_suffix(f".{rank}.signal").read_text() for rank in range(2)] == [str(int(signum))] * 2
    assert not any(is_running(pid) for pid in pids)


def test_an_interruption_of_the_parent_itself_leaves_nobody(
    plans: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plans(FOREVER, FOREVER)

    def fails(ranks: Any) -> int:
        said(plan, 0), said(plan, 1)
        raise OSError("the disk is full")

    monkeypatch.setattr(launching, "_watch", fails)
    with pytest.raises(OSError, match="disk"):
        launch(plan, 2)
    assert not any(is_running(said(plan, rank)["pid"]) for rank in range(2))
