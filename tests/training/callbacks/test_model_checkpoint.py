"""The best score belongs to the run and not to the path of its folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning import callbacks as lightning
from pytorch_lightning.demos.boring_classes import BoringModel

from mmtrain.training.callbacks.model_checkpoint import ModelCheckpoint
from tests.runs import rows_of, run_tiny
from tests.tiny import make_tables


def callback_of(folder: Path, kind: type[lightning.ModelCheckpoint] = ModelCheckpoint) -> lightning.ModelCheckpoint:
    """As build_callbacks makes the one of best.ckpt, ready to load."""
    made = kind(dirpath=folder, filename="best", monitor="val/loss", mode="min", save_top_k=1)
    made.setup(Trainer(logger=False, accelerator="cpu", enable_progress_bar=False), BoringModel(), "fit")
    return made


def with_best(folder: Path, kind: type[lightning.ModelCheckpoint]) -> dict[str, Any]:
    """The state of a callback that has kept best.ckpt with a score of 0.5."""
    folder.mkdir(parents=True)
    (folder / "best.ckpt").touch()
    made, path = callback_of(folder, kind), str(folder / "best.ckpt")
    made.best_k_models = {path: torch.tensor(0.5)}
    made.best_model_path = made.kth_best_model_path = path
    made.best_model_score = made.kth_value = torch.tensor(0.5)
    return made.state_dict()


def test_the_state_has_no_absolute_path_and_the_key_of_lightnings_class(tmp_path: Path) -> None:
    state = with_best(tmp_path / "a", ModelCheckpoint)
    assert str(tmp_path) not in repr(state)
    mine, theirs = callback_of(tmp_path / "a"), callback_of(tmp_path / "a", lightning.ModelCheckpoint)
    assert mine.state_key == theirs.state_key


@pytest.mark.parametrize("kind", [ModelCheckpoint, lightning.ModelCheckpoint], ids=["now", "absolute paths"])
@pytest.mark.parametrize("move", [True, False], ids=["moved", "in place"])
def test_a_moved_folder_keeps_its_best_score(kind: type[lightning.ModelCheckpoint], move: bool, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    state = with_best(folder, kind)
    if move:
        folder = folder.rename(tmp_path / "b")
    loaded = callback_of(folder)
    loaded.load_state_dict(state)
    best = str(folder / "best.ckpt")
    assert loaded.best_model_score == 0.5 and loaded.kth_value == 0.5
    assert loaded.best_model_path == loaded.kth_best_model_path == best and loaded.best_k_models == {best: 0.5}
    assert not loaded.check_monitor_top_k(loaded._is_file.keywords["trainer"], torch.tensor(0.6))


def test_a_score_whose_checkpoint_is_missing_does_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as that of a run in another folder, whose last.ckpt a new run resumes."""
    state = with_best(tmp_path / "a", ModelCheckpoint)
    loaded = callback_of(tmp_path / "b")
    loaded.load_state_dict(state)
    assert loaded.best_model_score is None and loaded.best_k_models == {}
    assert capsys.readouterr().out.startswith(
        f"{tmp_path / 'b' / 'best.ckpt'}: missing, so the best score so far (val/loss = 0.5)"
    )


def test_a_run_that_is_moved_or_copied_and_goes_on_ends_with_its_best(tmp_path: Path) -> None:
    """The highest loss on the validation split is the first one, because the model learns."""
    tables = make_tables(tmp_path / "data")
    given = ["task=[classification]", "optimizer.lr=0.003", "schedule=constant", "callbacks=[]", "test.subsets=none"]
    given += ["monitor=val/loss", "checkpoint.mode=max", "checkpoint.safetensors=false"]
    before, moved, copied = tmp_path / "before", tmp_path / "moved", tmp_path / "copied"
    assert run_tiny(tables, before, *given, "trainer.max_epochs=3") == 0
    best = json.loads((before / "summary.json").read_text())["best"]
    before.rename(moved)
    assert run_tiny(tables, moved, *given, "trainer.max_epochs=4", "resume=auto") == 0
    losses = {int(row["step"]): float(row["val/loss"]) for row in rows_of(moved) if row["val/loss"]}
    assert best["step"] == max(losses, key=lambda step: losses[step]) == 6 and len(losses) == 4
    shutil.copytree(moved, copied)
    assert run_tiny(tables, copied, *given, "trainer.max_epochs=4", "resume=auto") == 0
    for folder in (moved, copied):
        assert json.loads((folder / "summary.json").read_text())["best"] == best
        checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
        assert checkpoint["global_step"] == 6
        assert str(tmp_path) not in repr(checkpoint["callbacks"])
