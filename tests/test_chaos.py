"""scripts/chaos.py, smaller: runs that are killed and resumed end as those that were left alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import start_command

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


class ForkedCommand:
    """What chaos.py needs of a `subprocess.Popen`, for a command that starts with its imports done."""

    def __init__(self, words: list[str], log: Path) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = start_command(*words[2:], env=environment, stdout=log, stderr=log, new_session=True)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, signal.Signals(number))


@pytest.mark.slow(seconds=30)
def test_a_killed_run_is_resumed_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import chaos

    monkeypatch.setattr(chaos, "run", ForkedCommand)
    options = ["--cases", "kept", "--kills", "2", "--seed", "1", "--folder", str(tmp_path / "chaos")]
    monkeypatch.setattr(sys, "argv", ["chaos.py", *options])
    status = chaos.main()
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "kept: 2 kills, equal" in printed


@pytest.mark.slow(seconds=90)
def test_two_killed_ranks_are_resumed_to_the_last_bit(tmp_path: Path) -> None:
    """By the script as it is typed, with processes that start separately."""
    options = ["--cases", "two ranks", "--kills", "1", "--folder", str(tmp_path / "chaos")]
    command = [sys.executable, str(SCRIPTS / "chaos.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "two ranks: 1 kills, equal" in done.stdout
