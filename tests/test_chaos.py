"""scripts/chaos.py, smaller: runs that are killed and go on end as those that were left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).resolve().parent.parent / "scripts" / "chaos.py"


@pytest.mark.slow(seconds=90)
@pytest.mark.parametrize(
    "options", [["--cases", "kept", "--kills", "2", "--seed", "1"], ["--cases", "two ranks", "--kills", "1"]]
)
def test_what_is_killed_goes_on_to_the_last_bit(options: list[str], tmp_path: Path) -> None:
    command = [sys.executable, str(CHAOS), *options, "--folder", str(tmp_path / "chaos")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{options[1]}: {options[3]} kills, equal" in done.stdout
