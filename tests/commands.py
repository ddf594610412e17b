"""`python train.py ...` as a process of its own that is forked from a server, which has imported torch and the model.

A fresh interpreter imports for seconds before it does anything; that one starts as it should is seen in
tests/cli/test_main.py and tests/test_processes.py.
"""

import atexit
import logging
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch
from hydra.core.global_hydra import GlobalHydra
from markupsafe import Markup

from mmtrain.cli import launch
from mmtrain.modes import run as run_module
from mmtrain.report import report
from mmtrain.report.curves import Panel
from tests.ranks import forking

TRAIN = Path(__file__).resolve().parent.parent / "train.py"


def run_command(
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    seconds: float = 300,
    forked_ranks: bool = False,
) -> CompletedProcess[str]:
    """The command to its end; its output, and its exit status. It is killed after so many seconds.

    Args:
        arguments: those behind `train.py`.
        cwd: where it is typed; None: where this process is.
        env: the whole environment; None: the one of this process.
        seconds: how long it may take.
        forked_ranks: its ranks are forked from it, with its imports. tests/test_processes.py starts real ones.
    """
    with TemporaryDirectory() as folder:
        said = [Path(folder) / "stdout", Path(folder) / "stderr"]
        process = start_command(*arguments, cwd=cwd, env=env, stdout=said[0], stderr=said[1], forked_ranks=forked_ranks)
        process.join(seconds)
        late = process.is_alive()
        if late:
            process.kill()
            process.join()
        stdout, stderr = (path.read_text(encoding="utf-8") for path in said)
    assert not late, f"it takes longer than {seconds} seconds\n{stdout}\n{stderr}"
    assert process.exitcode is not None
    return CompletedProcess([str(TRAIN), *arguments], process.exitcode, stdout, stderr)


def start_command(
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: Path | None = None,
    stderr: Path | None = None,
    new_session: bool = False,
    forked_ranks: bool = False,
) -> BaseProcess:
    """The same, not waited for. What it says goes to files, or is lost. `new_session`: it leads a group of its own."""
    environment, at = dict(os.environ if env is None else env), cwd or Path.cwd()
    streams = [stdout or Path(os.devnull), stderr or Path(os.devnull)]
    process = forking().Process(target=_enter, args=(arguments, at, environment, streams, new_session, forked_ranks))
    process.start()
    return process


def _enter(
    arguments: tuple[str, ...],
    cwd: Path,
    environment: dict[str, str],
    streams: list[Path],
    new_session: bool,
    forked_ranks: bool,
) -> None:
    if new_session:
        os.setsid()
    if forked_ranks:
        launch.subprocess = SimpleNamespace(Popen=_ForkedRank)  # type: ignore[assignment]
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # workers of the loader start as on a shell: not by a new server
    for number, path in enumerate(streams, start=1):
        stream = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(stream, number)
        os.close(stream)
    if "OMP_NUM_THREADS" in environment:
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    report.draw = _draw_first
    sys.argv = [str(TRAIN), *arguments]
    try:
        runpy.run_path(str(TRAIN), run_name="__main__")
    finally:
        atexit._run_exitfuncs()


class _ForkedRank:
    """What mmtrain.cli.launch needs of a `subprocess.Popen` of `python -m mmtrain.modes.run CONFIG_FILE`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], start_new_session: bool) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid > 0:
            return
        try:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                signal.signal(number, signal.SIG_DFL)
            os.environ.clear()
            os.environ.update(env)
            torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
            logging.root.handlers.clear()  # Hydra has set them up in the launcher
            GlobalHydra.instance().clear()
            sys.argv = [run_module.__file__, command[-1]]
            run_module.main()
        finally:
            os._exit(1)

    def poll(self) -> int | None:
        if self.returncode is None:
            self._take(os.waitpid(self.pid, os.WNOHANG))
        return self.returncode

    def wait(self) -> int | None:
        if self.returncode is None:
            self._take(os.waitpid(self.pid, 0))
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _take(self, ended: tuple[int, int]) -> None:
        if ended[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])


_draw = report.draw


def _draw_first(panel: Panel, *, index: int, best_step: int | None) -> Markup:
    """The first curve alone: to draw them all is a fifth of so short a run. tests/report draws every kind."""
    return _draw(panel, index=index, best_step=best_step) if index == 0 else Markup("<svg></svg>")
