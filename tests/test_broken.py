"""Every broken command line of `broken.py` is explained: what, where it was set, the fix; nothing heavy is touched."""

import shlex
import socket
import statistics
import time
from pathlib import Path

import pytest

from mmtrain.build import compose
from mmtrain.cli.main import explain_dashes
from mmtrain.config import rules_hardware as machine
from mmtrain.config.compose import config_dir
from mmtrain.config.validate import faults_of, with_overrides_of_run
from mmtrain.data.module import DataModule
from mmtrain.modes import run as run_module
from tests.broken import BROKEN

CASES = [(kind, line, words) for kind, cases in BROKEN.items() for line, words in cases]
took: dict[str, float] = {}


@pytest.fixture(autouse=True)
def nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket, no table, no weights; nor is there a GPU."""

    def touched(*args: object, **options: object) -> None:
        raise AssertionError("a broken configuration touched the network, data or weights")

    monkeypatch.chdir(Path(__file__).resolve().parent.parent)
    monkeypatch.setattr(socket.socket, "connect", touched)
    monkeypatch.setattr(machine, "has_no_gpu", lambda: True)
    monkeypatch.setattr(DataModule, "read", touched)
    monkeypatch.setattr(run_module, "load_checkpoint", touched)


def said_of(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints of a command line, and that it is status 2."""
    words = shlex.split(line)
    if dashed := explain_dashes(words, ["--config-dir"]):
        return "\n".join(dashed)
    extra = words.pop(1) if words[0] == "--config-dir" else None
    overrides, faults = with_overrides_of_run([w for w in words if not w.startswith("--")])
    faults = faults or faults_of(config_dir(), extra, overrides, multirun=False)
    if faults:
        return "\n".join(faults)
    assert run_module.run(compose(overrides)) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("kind", "line", "words"), CASES, ids=[line for _, line, _ in CASES])
def test_it_is_explained(kind: str, line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.perf_counter()
    output = said_of(line, capsys)
    took[line] = time.perf_counter() - began
    assert words in output, output
    assert "Traceback" not in output
    _, *fix = output.rstrip().splitlines()
    assert fix and all(row.startswith("    ") for row in fix if row[:1] == " "), output
    keys = [word.lstrip("+~").split("=")[0] for word in shlex.split(line)]
    assert any(key in output for key in keys), f"no key of the command line is named: {output}"
    where = [*shlex.split(line), "configs/"]
    assert any(word in output for word in where), f"where it was set is not reported: {output}"


def test_there_are_many_and_each_is_explained_in_a_moment() -> None:
    assert len(CASES) >= 120
    if len(took) < len(CASES):
        pytest.skip("another process ran the others")
    slowest = max(took, key=lambda line: took[line])
    print(f"\n{len(CASES)} broken command lines: median {statistics.median(took.values()):.2f} s,")
    print(f"slowest {took[slowest]:.2f} s: {slowest}")
