"""`python train.py ...` as a process of its own that is forked from a server, which has imported torch and the model.

A fresh interpreter imports for seconds before it does anything; that one starts as it should is seen in
tests/cli/test_main.py and tests/test_processes.py.
"""

import atexit
import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

import torch
from markupsafe import Markup

from mmtrain.report import report
from mmtrain.report.curves import Panel
from tests.ranks import forking

TRAIN = Path(__file__).resolve().parent.parent / "train.py"


def run_command(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, seconds: float = 300
) -> CompletedProcess[str]:
    """The command to its end; what it said, and its exit status. It is killed after so many seconds.

    Args:
        arguments: those behind `train.py`.
        cwd: where it is typed; None: where this process is.
        env: the whole environment; None: that of this process.
        seconds: how long it may take.
    """
    with TemporaryDirectory() as folder:
        said = [Path(folder) / "stdout", Path(folder) / "stderr"]
        process = start_command(*arguments, cwd=cwd, env=env, stdout=said[0], stderr=said[1])
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
) -> BaseProcess:
    """The same, not waited for. What it says goes to files, or is lost. `new_session`: it leads a group of its own."""
    environment, at = dict(os.environ if env is None else env), cwd or Path.cwd()
    streams = [stdout or Path(os.devnull), stderr or Path(os.devnull)]
    process = forking().Process(target=_enter, args=(arguments, at, environment, streams, new_session))
    process.start()
    return process


def _enter(
    arguments: tuple[str, ...], cwd: Path, environment: dict[str, str], streams: list[Path], new_session: bool
) -> None:
    if new_session:
        os.setsid()
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


_draw = report.draw


def _draw_first(panel: Panel, *, index: int, best_step: int | None) -> Markup:
    """The first curve alone: to draw them all is a fifth of so short a run. tests/report draws every kind."""
    return _draw(panel, index=index, best_step=best_step) if index == 0 else Markup("<svg></svg>")
