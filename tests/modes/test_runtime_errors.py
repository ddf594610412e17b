"""Faults of the machine: each says what to change, and keeps quiet of what it does not know."""

import json
import os
import signal
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset
from transformers import AutoConfig

from mmtrain.build import compose
from mmtrain.data.dataset import TrainSplit
from mmtrain.modes import run as run_module
from mmtrain.modes.runtime_errors import explain_error, status_of
from mmtrain.training.loggers.csv import CSVMetrics
from tests.runs import run_tiny
from tests.tiny import make_tables


def test_a_worker_that_is_killed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main, seen = os.getpid(), TrainSplit.__getitems__

    def killed(self: TrainSplit, positions: list[tuple[int, int]]) -> object:
        if os.getpid() != main and positions[0] == (1, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        return seen(self, positions)

    monkeypatch.setattr(TrainSplit, "__getitems__", killed)
    tables = make_tables(tmp_path / "data")
    assert run_tiny(tables, tmp_path / "run", "data.num_workers=1") == 1
    output = capsys.readouterr().err
    assert "a loading process (pid " in output and ("was killed (Killed)" in output or "ended without" in output)
    assert "lower data.num_workers or data.batch_size" in output and "resume=auto" in output
    monkeypatch.undo()
    assert run_tiny(tables, tmp_path / "run", "data.num_workers=1", "resume=auto") == 0


class Leaves(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, place: int) -> int:
        os._exit(3)


def test_a_worker_that_leaves_is_told_of_too() -> None:
    with pytest.raises(RuntimeError) as caught:
        list(DataLoader(Leaves(), num_workers=1))
    message = explain_error(caught.value, compose([]))
    assert message is not None and "ended without a message" in message


def test_a_worker_that_goes_while_it_hands_a_batch_over_is_told_of_too() -> None:
    """Its socket is closed; that of a site on the network is another matter."""
    here, there = Pipe()
    there.close()
    with pytest.raises(EOFError) as caught:
        here.recv()
    message = explain_error(caught.value, compose([]))
    assert message is not None and "a loading process (pid unknown) ended without a message" in message
    assert explain_error(ConnectionResetError("the site"), compose([])) is None


def test_a_full_device_says_what_to_change() -> None:
    error = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.20 GiB is"
        " free."
    )
    message = explain_error(error, compose(["data.batch_size=64", "trainer.accumulate_grad_batches=2"]))
    assert message is not None
    assert message.startswith("the device is out of memory: 2.50 GiB were requested, 1.20 GiB are free\n")
    assert "trainer.accumulate_grad_batches=4 (2 now; data.batch_size=64 stays" in message


def test_a_full_device_says_what_was_planned(tmp_path: Path) -> None:
    plan = {"memory": {"weights": 2**20, "casts": 0, "total": 2**21}, "batch": {"largest_size": 96}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    message = explain_error(torch.OutOfMemoryError("CUDA out of memory."), compose([f"run_dir={tmp_path}"]))
    assert message is not None
    assert "the plan has weights 1.00 MiB, total 2.00 MiB; data.batch_size=96 at most" in message


def test_a_full_disk_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = make_tables(tmp_path / "data")

    def full(self: CSVMetrics, *args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(CSVMetrics, "log_metrics", full)
        patched.setattr(run_module, "write_report", full)
        assert run_tiny(tables, tmp_path / "run", report=True) == 2
    output = capsys.readouterr().err
    assert f"run_dir={tmp_path / 'run'}: No space left on device\n    fix: free space on that disk" in output
    assert "summary.json and report.html cannot be written" in output and "Traceback" not in output


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "run_dir=outputs/mine: No space left on device\n    fix: free space"),
        (OSError(30, "Read-only file system", "a.csv"), "a.csv: Read-only file system\n    fix: mount it with write"),
        (PermissionError(13, "Permission denied", "a.csv"), "a.csv: Permission denied\n    fix: give yourself access"),
        (
            Exception("No space left on device (os error 28)"),
            "run_dir=outputs/mine: No space left on device\n    fix: ",
        ),
        (OSError("Caught OSError in DataLoader worker process 0.\n[Errno 24] Too many open files"), "ulimit -n 65536"),
        (OSError(1, "Operation not permitted"), None),
        (OSError(24, "Too many open files", "a.jpg"), "a.jpg: Too many open files\n    fix: allow more open files"),
        (
            RuntimeError("unable to write to file </torch_7_1>: No space left on device (28)"),
            "/dev/shm: No space left on device: loading processes send batches through it\n    fix: increase it",
        ),
    ],
)
def test_a_disk_and_a_permission_say_what_to_fix_with_status_2(error: Exception, words: str | None) -> None:
    message = explain_error(error, compose(["run_dir=outputs/mine"]))
    assert (message is None) == (words is None) and (words is None or words in str(message))
    assert status_of(error) == (1 if words is None else 2)


def test_memory_and_processes_keep_status_1() -> None:
    assert status_of(torch.OutOfMemoryError("CUDA out of memory.")) == 1
    assert status_of(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")) == 1


@pytest.mark.parametrize("content", ["", '{"memory": 3', "[]", '{"memory": 3, "batch": {}}'])
def test_a_damaged_plan_hides_no_fault(content: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(content)
    message = explain_error(torch.OutOfMemoryError("CUDA out of memory."), compose([f"run_dir={tmp_path}"]))
    assert message is not None and message.startswith("the device is out of memory\n")


def refused_by_a_callback() -> None:
    EarlyStopping(monitor="val/loss", mode="nothing")


def without_its_metric() -> None:
    stopping = EarlyStopping(monitor="val/nothing")
    stopping._validate_condition_metric({"val/loss": torch.zeros(())})


def unknown_model_type() -> None:
    AutoConfig.for_model("nothing")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (refused_by_a_callback, "pytorch_lightning: `mode` can be min, max, got nothing"),
        (without_its_metric, "pytorch_lightning: Early stopping conditioned on metric `val/nothing`"),
        (unknown_model_type, "transformers: Unrecognized model identifier: nothing"),
    ],
)
def test_what_a_library_refuses_is_explained_with_status_2(call: Callable[[], None], message: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of each library its own
        call()
    explanation = explain_error(caught.value, compose([]))
    assert explanation is not None and explanation.startswith(message)
    assert explanation.splitlines()[-1] == "    fix: change the key that it names" and status_of(caught.value) == 2


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [
        (
            MisconfigurationException(
                "`ModelCheckpoint(monitor='val/label/acuracy')` could not find the monitored key in the returned"
                " metrics: ['lr', 'val/loss', 'val/label/accuracy']. HINT: Did you call `log('val/label/acuracy', v)`"
            ),
            "monitor=val/label/acuracy: not a metric of validation, which has val/loss, val/label/accuracy\n"
            "    fix: set monitor=val/label/accuracy",
            2,
        ),
        (
            RuntimeError("Found no NVIDIA driver on your system. Please check\nthat you have"),
            "trainer.accelerator=cpu: Found no NVIDIA driver on your system. Please check\n    fix: set trainer=cpu",
            2,
        ),
        (
            RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set 'torch.use_"),
            "trainer.deterministic=True: cumsum_cuda_kernel does not have a deterministic implementation\n"
            "    fix: set trainer.deterministic=warn",
            2,
        ),
        (
            RuntimeError("Function 'LogSoftmaxBackward0' returned nan values in its 0th output."),
            "trainer.detect_anomaly=true: Function 'LogSoftmaxBackward0' returned nan values in its 0th output. The",
            2,
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:130] DefaultCPUAllocator: can't allocate memory: you tried to"
                " allocate 2147483648 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "this machine is out of memory: 2.00 GiB were requested at once\n    fix: lower data.batch_size (64)",
            1,
        ),
        (MemoryError(), "this machine is out of memory\n    fix: lower data.batch_size (64)", 1),
        (
            FloatingPointError("matching: a logit is not finite"),
            "training stopped: matching: a logit is not finite\n    no checkpoint was written before\n    fix: resume",
            2,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_settings_numbers_and_memory_are_explained(error: Exception, message: str, status: int, tmp_path: Path) -> None:
    explanation = explain_error(error, compose([f"run_dir={tmp_path}", "data.batch_size=64"]))
    assert explanation is not None and explanation.startswith(message)
    assert status_of(error) == status


def test_a_setting_that_lightning_meets_while_it_trains_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = make_tables(tmp_path / "data")
    short = ["task=[classification]", "trainer.max_steps=6"]
    assert run_tiny(tables, tmp_path / "1", *short, "monitor=val/classification/acuracy") == 2
    output = capsys.readouterr().err
    assert "monitor=val/classification/acuracy: not a metric of validation, which has val/" in output
    assert "fix: set monitor=val/classification/accuracy" in output and "Traceback" not in output
    assert run_tiny(tables, tmp_path / "2", *short, "trainer.val_check_interval=1000") == 2
    output = capsys.readouterr().err
    assert "pytorch_lightning: `val_check_interval` (1000) must be less than" in output and "Traceback" not in output


def test_a_fault_of_the_program_is_not_explained_away() -> None:
    assert explain_error(ValueError("Expected more than 1 value per channel"), compose([])) is None
    with pytest.raises(ValueError, match="Expected input batch_size") as caught:
        torch.nn.functional.cross_entropy(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))
    assert explain_error(caught.value, compose([])) is None and status_of(caught.value) == 1
    assert explain_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), compose([])) is None
    assert explain_error(KeyError("DataLoader worker"), compose([])) is None


@pytest.mark.parametrize(
    "message",
    [
        "[/x/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:3231: Connection reset by peer. This is typically",
        "[../gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:1234",
        "NCCL error: remote process exited or there was a network error",
    ],
)
def test_a_rank_that_others_have_left_says_so(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose([])
    assert explain_error(RuntimeError(message), cfg) is None, "alone it cannot be that"
    monkeypatch.setattr("mmtrain.modes.runtime_errors.world_size", lambda: 2)
    monkeypatch.setattr("mmtrain.modes.runtime_errors.rank", lambda: 1)
    assert explain_error(RuntimeError(message), cfg) == (
        "rank 1: another process of this run has ended; see its own message for the reason\n"
        "    fix: resume with resume=auto"
    )
