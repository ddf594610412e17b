"""A run whose small files are damaged: what nothing depends on is noted, what is needed is named with the fix."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from mmtrain.build import compose, rebuild_from_run
from mmtrain.data.dataset import EvalSplit
from mmtrain.errors import ConfigError, WriteError
from mmtrain.modes.plan.find import resolve_batch_size
from mmtrain.modes.search import index as index_module
from mmtrain.modes.search.index import SearchIndex
from mmtrain.report.report import read_summary, write_report
from mmtrain.training.callbacks.quarantine import Quarantine
from mmtrain.training.callbacks.skips import NonFiniteGuard
from mmtrain.training.checkpoint.load import check_same_names, load_checkpoint
from mmtrain.training.checkpoint.load_run import load_run
from mmtrain.training.nonfinite import SkippedStep
from mmtrain.types import Bad
from tests.batches import make_batch
from tests.runs import rows_of, run_tiny
from tests.tiny import ROWS, make_tables

STEPS = -(-ROWS["train"] // 8)
ON = ["resume=auto", "trainer.max_epochs=2"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("damaged") / "data")


@pytest.fixture(scope="module")
def half(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, which can go on."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    assert run_tiny(tables, folder, "trainer.max_epochs=1") == 0
    return folder


@pytest.fixture
def run(half: Path, tmp_path: Path) -> Path:
    shutil.copytree(half, tmp_path / "run")
    return tmp_path / "run"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def refused(tables: Path, run: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    capsys.readouterr()
    assert run_tiny(tables, run, *overrides) == 2
    output = capsys.readouterr().err
    assert "Traceback" not in output
    return output


# ---------------------------------------------------------------------------- what only the report is drawn from


def test_what_only_the_report_is_drawn_from_ends_no_run(
    run: Path, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"split": "train", "id": "train-3", "row": 3, "file": "a.png", "reason": "it was not there"}
    (run / "plan.json").write_text('{"memory": {"wei')
    (run / "skipped.jsonl").write_bytes(b'{"step": 2, "in\n\0\0\0')
    (run / "quarantine.jsonl").write_text(json.dumps(good) + '\n{"split": "tr')
    cut(run / "summary.json")
    (run / "metrics.csv").write_bytes((run / "metrics.csv").read_bytes() + bytes(60) + b"\n")
    assert run_tiny(tables, run, *ON, report=True) == 0
    output = capsys.readouterr()
    for note in (
        "skipped.jsonl: 2 of 2 lines cannot be read and are skipped",
        "metrics.csv: 1 of 7 lines cannot be read and is skipped",
        "plan.json is damaged: it is not complete JSON",
        "quarantine.jsonl: 1 of 2 lines cannot be read and is skipped",
    ):
        assert note in output.err
    assert json.loads((run / "summary.json").read_text())["status"] == "done"
    assert [int(row["step"]) for row in rows_of(run)] == list(range(1, 2 * STEPS + 1))
    assert not (run / "skipped.jsonl").exists() and "report.html" in output.out


def test_a_summary_that_was_cut_is_written_again_by_a_test(
    run: Path, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((run / "summary.json").read_text())["test"]
    cut(run / "summary.json")
    assert run_tiny(tables, run, "mode=test") == 0
    assert "summary.json is damaged: it is not complete JSON" in capsys.readouterr().err
    again = json.loads((run / "summary.json").read_text())
    assert again["test"] == before and again["status"] == "done"


@pytest.mark.parametrize(
    "content", ["", "null", "[]", "3", '{"test": [], "parts": {}}', '{"memory": 3}', '{"run": {}}']
)
def test_a_page_is_written_whatever_it_is_drawn_from(content: str, tmp_path: Path) -> None:
    for name in ("summary.json", "plan.json", "skipped.jsonl", "quarantine.jsonl", "config.yaml", "metrics.csv"):
        (tmp_path / name).write_text(content)
    assert read_summary(tmp_path)["test"] == {}
    write_report(tmp_path, exhibits=[], picture=lambda name: None, text=lambda name: None)
    assert "This run has no summary.json" in (tmp_path / "report.html").read_text()


def test_the_list_of_bad_samples_goes_on_behind_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(tmp_path, num_rows={"train": 10}, max_bad_fraction=0.3)
    batch = make_batch([1], [1])
    batch.bad = [Bad("b", 7, "b.png", "broken")]
    quarantine._note("train", [batch])
    path.write_bytes(path.read_bytes() + b'{"split": "train"}\n{"spl\n' + bytes(80))
    batch.bad = [Bad("a", 2, "a.png", "missing")]
    quarantine._note("train", [batch])
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "b"]
    assert f"{path}: 3 of 4 lines cannot be read and are skipped" in capsys.readouterr().err


def test_skipped_steps_go_on_behind_damage(tmp_path: Path) -> None:
    skips, path = NonFiniteGuard(tmp_path, max_in_row=9), tmp_path / "skipped.jsonl"
    for step in (1, 2, 3):
        skips(SkippedStep(step, {"loss": float("nan")}, 1.0, "loss", ["a"], 1))
    path.write_bytes(path.read_bytes() + b'{"step": 4, "fi' + bytes(30))
    skips.begin(2)
    skips(SkippedStep(3, {"loss": 1.0}, float("inf"), "grad", ["b"], 1))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_lost_rows_of_metrics_are_noted(run: Path, tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "metrics.csv").write_bytes(b"")
    assert run_tiny(tables, run, *ON) == 0
    noted = f"metrics.csv is damaged: no header; its rows up to step {STEPS} are lost"
    assert noted in capsys.readouterr().err
    assert [int(row["step"]) for row in rows_of(run) if row["train/loss"]] == list(range(STEPS + 1, 2 * STEPS + 1))


# ---------------------------------------------------------------------------- what a run needs


@pytest.mark.parametrize("name", ["tokenizer.json", "classes_label.json", ".vocabulary.json"])
def test_a_vocabulary_that_is_needed_is_named(
    name: str, run: Path, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(run / name)
    for overrides in (ON, ["mode=test"]):
        output = refused(tables, run, capsys, *overrides)
        assert f"{run / name} is damaged: " in output and "\n    fix: restore it, or delete" in output


def test_a_vocabulary_that_was_deleted_is_learned_again_and_compared(
    run: Path, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(run / "tokenizer.json")
    (run / ".vocabulary.json").unlink()
    assert run_tiny(tables, run, "mode=test") == 0, "the split that it learned from is there"
    checkpoint = load_checkpoint(run / "checkpoints" / "last.ckpt")
    names = {"inputs.text": ["[PAD]", "other"], "targets.label": checkpoint["mmtrain"]["names"]["targets.label"]}
    with pytest.raises(ConfigError) as caught:
        check_same_names(checkpoint, names, Path("last.ckpt"))
    assert "another vocabulary of data.inputs.text: " in str(caught.value)
    assert "index 1 is '[UNK]' in the checkpoint and 'other' here\n    fix: restore the vocabulary" in str(caught.value)


def test_broken_checkpoints_bind_no_vocabulary(run: Path, tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (run / "checkpoints").iterdir():
        cut(path) if path.name == "last.ckpt" else path.unlink()
    assert run_tiny(tables, run, "data.inputs.text.vocab_size=30", "resume=auto", "trainer.max_steps=1") == 0
    assert "skipped: " in capsys.readouterr().out
    assert len(json.loads((run / "tokenizer.json").read_text())["model"]["vocab"]) <= 30


@pytest.mark.parametrize("damage", [cut, lambda path: path.write_bytes(b""), Path.unlink])
def test_a_configuration_that_is_needed_is_named(damage: Callable[[Path], object], run: Path) -> None:
    damage(run / "config.yaml")
    with pytest.raises(
        ConfigError, match=r"config\.yaml(: Missing key| is damaged|: not written by mmtrain)|has no config\.yaml"
    ):
        load_run(run, rebuild_from_run)


def test_a_batch_size_that_cannot_be_read_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_bytes(b"")
    cfg = compose([f"run_dir={run}", "resume=auto", "trainer.find_batch_size=true"])
    assert resolve_batch_size(cfg) == 2
    assert "config.yaml is damaged: it is empty" in capsys.readouterr().err


# ---------------------------------------------------------------------------- written over in place


def full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_old_predictions_stay_when_the_new_ones_are_not_complete(
    run: Path, tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny(tables, run, "mode=predict") == 0
    before = (run / "predictions.jsonl").read_bytes()
    seen, calls = EvalSplit.text, []

    def text(self: EvalSplit, row: int) -> str | None:
        calls.append(row)
        return full() if len(calls) > 9 else seen(self, row)

    monkeypatch.setattr(EvalSplit, "text", text)
    output = refused(tables, run, capsys, "mode=predict")
    assert "No space left on device\n    fix: free space" in output
    assert (run / "predictions.jsonl").read_bytes() == before
    assert not list(run.glob(".*.part"))


def small_index(step: int) -> SearchIndex:
    import torch

    vectors = torch.eye(3)
    rows = [index_module.Row(f"{step}-{n}", "test", "a\u2028b", {}) for n in range(3)]
    return SearchIndex({"image": vectors}, {"image": torch.arange(3)}, rows, Path(), "w", step)


@pytest.mark.parametrize("fault", [full, SafetensorError("I/O error: No space left on device (os error 28)")])
def test_the_old_index_stays_when_the_new_one_is_not_complete(
    fault: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    folder.mkdir()
    small_index(1).write(folder)
    (folder / "notes.txt").write_text("of the user")

    def save(*_: object) -> None:
        raise fault if isinstance(fault, Exception) else fault()

    with monkeypatch.context() as patched:
        patched.setattr(index_module, "save_file", save)
        with pytest.raises(WriteError, match=rf"{folder}/vectors.safetensors: cannot be written: No space left"):
            small_index(2).write(folder)
    assert SearchIndex.read(folder).step == 1
    small_index(2).write(folder)
    result = SearchIndex.read(folder)
    assert result.step == 2 and [row.id for row in result.rows] == ["2-0", "2-1", "2-2"]
    assert sorted(p.name for p in folder.iterdir()) == ["index.json", "notes.txt", "rows.jsonl", "vectors.safetensors"]


@pytest.mark.parametrize("moves", range(4))
def test_an_index_is_the_old_one_or_the_new_one_after_a_kill(
    moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_index(1).write(tmp_path)
    left, move = moves, Path.rename if moves == 0 else Path.replace

    def killed(self: Path, target: Path) -> Path:
        nonlocal left
        if self.name in ("index.json", "rows.jsonl", "vectors.safetensors") or moves == 0:
            left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return move(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename" if moves == 0 else "replace", killed)
        with contextlib.suppress(KeyboardInterrupt):
            small_index(2).write(tmp_path)
    result = SearchIndex.read(tmp_path)
    assert result.step == (1 if moves == 0 else 2) and result.rows[0].id == f"{result.step}-0"
    small_index(3).write(tmp_path)
    assert SearchIndex.read(tmp_path).step == 3


@pytest.mark.parametrize("content", ["", "{}", '{"format": 1}', "[]", '{"format": 1, "sha256": "x", "vectors": 3}'])
def test_a_damaged_head_of_an_index_is_explained(content: str, tmp_path: Path) -> None:
    small_index(1).write(tmp_path)
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ConfigError, match=r"mode=predict predict\.index=DIR again"):
        SearchIndex.read(tmp_path)
