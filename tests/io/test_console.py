"""What a stranger names a file or a class cannot control the terminal, wherever it is printed."""

import io
import re
from pathlib import Path

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import mmtrain
from mmtrain.io.console import Terminal, plain_text
from mmtrain.io.escape import print_escaped
from mmtrain.report.table import metrics_table
from mmtrain.training.callbacks.quarantine import Quarantine
from mmtrain.training.callbacks.skips import NonFiniteGuard
from mmtrain.training.nonfinite import SkippedStep
from mmtrain.types import Bad

EVIL = "a\x1b]0;title\x07b\x1b[2J\r\x9bc\u202egnp.exe"
SHOWN = r"a\x1b]0;title\x07b\x1b[2J\x0d\x9bc\u202egnp.exe"


def table() -> Table:
    made = Table(title=EVIL)
    made.add_column(Text("name"))
    made.add_row(plain_text(EVIL))
    return made


@pytest.mark.parametrize("is_terminal", [True, False])
def test_text_tables_and_panels_are_shown_escaped(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm"}.items() if is_terminal else ():
        monkeypatch.setenv(name, value)
    terminal = Terminal(width=150)
    terminal.file = io.StringIO()
    terminal.print(EVIL, markup=False, soft_wrap=True)
    terminal.print(Panel(EVIL))
    terminal.print(table())
    terminal.print(Text(EVIL))
    output = terminal.file.getvalue()
    assert output.count(SHOWN) == 4 and r"a\x1b]0;titleb\x1b[2J\x9bc\u202egnp.exe" in output, "rich drops two from Text"
    assert not {"\x07", "\r", "\x9b", "\u202e"} & set(output)
    codes = output.split("\x1b")[1:]
    assert all(code.startswith("[") and code.partition("m")[0][1:].replace(";", "").isdigit() for code in codes)
    assert bool(codes) == is_terminal, "colours of the tables are codes of the program"


def test_lines_are_printed_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_escaped(ValueError(f"{EVIL}\nfix: b"), stderr=True)
    print_escaped("größer 👩‍🚀\n\tb")
    output = capsys.readouterr()
    assert output.err == f"{SHOWN}\nfix: b\n" and output.out == "größer 👩‍🚀\n\tb\n"


def test_a_name_cannot_begin_a_line_of_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quarantine = Quarantine(tmp_path, num_rows={"train": 4}, max_bad_fraction=0.0)
    rows = [{"id": "1\nreport: done", "file": "a\n.png", "reason": "cut"}]
    assert "    1\\x0areport: done: a\\x0a.png: cut\n" in quarantine._too_many("train", rows, [Bad("1", 0, "a", "cut")])
    NonFiniteGuard(tmp_path, max_in_row=3)(SkippedStep(1, {}, 1.0, "the input image", ["1\nreport: done"], 1))
    assert capsys.readouterr().err.count("\n") == 1


def test_names_of_metrics_are_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(width=150).print(metrics_table({"\x1b[2J/accuracy": {"value": 0.5, "chance": None}}))
    output = capsys.readouterr().out
    assert r"\x1b[2J/accuracy" in output and "\x1b" not in output


def test_nothing_else_writes_to_the_terminal() -> None:
    """ruff's T20 finds `print`; a console of rich's own class would not escape either."""
    package = Path(mmtrain.__file__).parent
    results = [str(path) for path in package.rglob("*.py") if re.search(r"\bConsole\(|\.print_exc\(", path.read_text())]
    assert results == []
