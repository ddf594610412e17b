"""The script that shows a data set: its tables, its sheet, and that it refuses what train.py refuses."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from mmtrain.config.compose import config_dir
from mmtrain.config.validate import faults_of
from tests.tiny import make_tables

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "show_data.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("show_data", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["show_data"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("show") / "data")


@pytest.fixture
def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run it as typed in a folder of its own: exit status, stdout, stderr."""

    def as_typed(*args: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["show_data.py", *args])
        monkeypatch.setattr(sys, "path", list(sys.path))
        status = script.main()
        output = capsys.readouterr()
        return status, output.out, output.err

    return as_typed


def cells(text: str, first: str) -> list[str]:
    """The cells of a row of a table."""
    line = next(line for line in text.splitlines() if re.match(rf"│ {first} +│", line))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_it_shows_what_is_there_and_writes_the_sheet(run, root: Path, tmp_path: Path) -> None:
    status, out, err = run("data=files", f"data.root={root}", "data.inputs.image.size=16", "out=sheet.png")
    assert (status, err) == (0, "")
    assert cells(out, "rows") == ["rows", "", "44", "13", "15"]
    assert cells(out, "image")[:3] == ["image", "image", "5 (11.4%)"]
    assert cells(out, "text")[2] == "6 (13.6%)"
    assert cells(out, "frame")[0] == "frame" and "balance of label" in out
    assert "data.batch_size=128: larger than the training split of 44 rows" in out
    assert re.search(r"text: \d+ of 12 different texts are in several splits", out)
    assert out.endswith("sheet: sheet.png\n")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 900 and sheet.size[1] > 1000


def test_what_no_task_reads_is_shown_and_does_not_stand_in_the_way(run, tmp_path: Path) -> None:
    rows = [{"caption": f"a cat {n}", "vector": [n, 1.0], "score": n, "label": "cd"[n % 2]} for n in range(8)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "val.jsonl").write_text(json.dumps(rows[0]) + "\n")
    _, out, _ = run("data=files", "data.root=.", "task=[classification]", "task.classification.input=text")
    assert cells(out, "vector")[1] == "vector" and cells(out, "number")[1] == "score"
    assert (tmp_path / "data_sheet.png").is_file()
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row | {"score": "PG"}) + "\n" for row in rows))
    (tmp_path / "val.jsonl").unlink()
    status, out, _ = run(
        "data=files",
        "data.root=.",
        "data.split.fractions={train: 1.0, val: 0, test: 0}",
        "task=[classification]",
        "task.classification.input=text",
    )
    assert status == 0
    assert "only what tasks read is shown, because reading the rest failed: data.columns.number=" in out
    assert cells(out, "text")[1] == "caption" and "not read: vector, score" in out


def test_gaps_of_each_number_and_what_no_task_uses(run, tmp_path: Path) -> None:
    rows = [
        {"caption": f"a cat {n}", "age": n, "height": 2.0 if n % 4 else None, "label": "cd"[n % 2]} for n in range(8)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[0]) + "\n")
    chosen = ["task=[classification]", "task.classification.input=vector", "data.columns.vector=[age,height]"]
    _, out, _ = run("data=files", "data.root=.", *chosen)
    assert cells(out, "vector")[2:] == ["0", "0"]
    assert re.search(r"│ +│ age +│ 0 +│ 0 +│", out)
    assert re.search(r"│ +│ height +│ 2 \(25\.0%\) +│ 1 \(100\.0%\) +│", out)
    assert "shown here, but used by no task of this command: text, caption" in out
    assert "fix: if the test should measure unseen contents, move their rows into one split" in out


def test_it_says_what_train_would_say(run, root: Path, tmp_path: Path) -> None:
    wrong = ["data=filse", "dim=0"]
    status, out, err = run(*wrong)
    assert (status, out) == (2, "")
    assert err.splitlines() == "\n".join(faults_of(config_dir(), None, wrong, multirun=False)).splitlines()
    status, _, err = run("data=files", f"data.root={root}", "data.columns.text=captoin")
    assert status == 2
    assert err.startswith("data.columns.text = captoin, but") and "set data.columns.text=caption" in err
    status, _, err = run("data=files", f"data.root={root}", "out=nowhere/sheet.png")
    assert (status, err) == (
        2,
        "out=nowhere/sheet.png: cannot be written\n    fix: name a .png file in an existing folder\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_large_table_is_sampled_and_says_so(
    run, script: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "MAX_ROWS", 20)
    status, out, _ = run("data=files", f"data.root={root}", "data.inputs.image.size=16")
    assert status == 0
    assert "train: 20 of 44 rows are used, evenly spaced" in out
    assert cells(out, "rows")[2] == "44"
    assert re.fullmatch(r"\d \([\d.]+%\) of 20 sampled", cells(out, "image")[2])


def test_help(run) -> None:
    status, out, _ = run("--help")
    assert status == 0 and "python scripts/show_data.py data=files data.root=DIR" in out
