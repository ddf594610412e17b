"""Steps that are not finite: the messages, and that they change nothing."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer

from mmtrain.build import compose
from mmtrain.config.compose import config_dir
from mmtrain.modes import run as run_module
from mmtrain.modes.run import run
from mmtrain.training.checkpoint.io import write_checkpoint
from mmtrain.training.checkpoint.load import load_checkpoint
from mmtrain.training.lit_module import LitModel
from mmtrain.training.nonfinite import explain
from mmtrain.training.trainer import build_trainer
from mmtrain.types import Batch
from tests.runs import rows_of, run_tiny, without_report
from tests.tiny import TINY_MODEL, make_tables

NAN = float("nan")
IMAGE_CNN = "encoder/image=cnn"
WEIGHT = "pos_embed"  # of the text encoder


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("tiny") / "data")


class Plant(Callback):
    """Corrupts something at the start of a step, and notes what the module is before and after each step."""

    def __init__(self, step: int, spoil: Callable[[LitModel, list[Batch]], None]) -> None:
        self.step = step
        self.spoil = spoil
        self.planted: list[str] = []
        self.before: list[dict[str, Any]] = []
        self.after: list[dict[str, Any]] = []

    def on_train_batch_start(self, trainer: Trainer, lit: LitModel, window: list[Batch], batch_idx: int) -> None:
        self.before.append(_kept(trainer, lit))
        if trainer.global_step == self.step - 1:
            self.spoil(lit, window)
            self.planted = [window[0].ids[row] for row in _bad_rows(window[0])]

    def on_train_batch_end(self, trainer: Trainer, lit: LitModel, *args: Any) -> None:
        self.after.append(_kept(trainer, lit))


def _kept(trainer: Trainer, lit: LitModel) -> dict[str, Any]:
    optimizer = trainer.optimizers[0].state_dict()["state"]
    memories = {n: t.extra_state() for n, t in lit.tasks.items() if n == "contrastive"}
    balances = {"balance": lit.balance.extra_state()}
    if lit.modality_balance is not None:
        balances["modality_balance"] = lit.modality_balance.extra_state()
    return deepcopy({"weights": lit.state_dict(), "moments": optimizer, "of": memories, **balances})


def _bad_rows(batch: Batch) -> list[int]:
    return batch.inputs["image"].values.isnan().flatten(1).any(dim=1).nonzero().flatten().tolist()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def spoil_a_picture(lit: LitModel, window: list[Batch]) -> None:
    row = window[0].present["image"].nonzero().flatten()[1]
    window[0].inputs["image"].values[row, 0, 3, 3] = NAN


def spoil_a_weight(lit: LitModel, window: list[Batch]) -> None:
    with torch.no_grad():
        lit.model.encoders["text"].get_parameter(WEIGHT).flatten()[5] = NAN


def run_with(plant: Plant, tables: Path, folder: Path, *overrides: str, report: bool = False) -> int:
    with pytest.MonkeyPatch.context() as patched, nullcontext() if report else without_report():
        patched.setattr(
            run_module, "build_trainer", lambda *a, extra=(), **p: build_trainer(*a, extra=[*extra, plant], **p)
        )
        model = [o for o in TINY_MODEL if not (IMAGE_CNN in overrides and o.startswith("encoder.image."))]
        given = ["data=files", f"data.root={tables}", f"run_dir={folder}", *model, "trainer.max_epochs=1"]
        return run(compose([*given, *overrides]))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["balance=famo", "task.contrastive.queue_size=16"],
        [IMAGE_CNN, "balance=gradnorm"],
        ["trainer.accumulate_grad_batches=2"],
    ],
    ids=["plain", "what is kept", "batch norms", "accumulated"],
)
def test_a_sample_that_is_not_finite_changes_nothing(
    overrides: list[str], tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant = Plant(3, spoil_a_picture)
    assert run_with(plant, tables, tmp_path / "run", *overrides, report=True) == 0
    assert [same(b, a) for b, a in zip(plant.before, plant.after, strict=True)] == [n == 3 for n in range(1, 7)]
    (line,) = (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert (record["step"], record["first"], record["ids"]) == (3, "the input image", plant.planted)
    assert record["in_row"] == 1 and "nan" in [str(v) for v in record["losses"].values()]
    assert f"step 3 is skipped, because it is not finite: the input image (samples {plant.planted[0]})" in (
        capsys.readouterr().err
    )
    losses = [row["train/loss"] for row in rows_of(tmp_path / "run")]
    assert [loss == "nan" for loss in losses] == [n == 3 for n in range(1, 7)]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "the input image" in page and plant.planted[0] in page


BALANCES = [
    f"{group}={path.stem}"
    for group in ("balance", "modality_balance")
    for path in sorted((config_dir() / group).glob("*.yaml"))
]


@pytest.mark.parametrize("balance", BALANCES)
def test_a_dropped_step_leaves_every_balance_as_it_was(balance: str, tables: Path, tmp_path: Path) -> None:
    plant = Plant(2, spoil_a_picture)
    short = ["trainer.max_steps=3", "trainer.limit_val_batches=0", "monitor=null", "callbacks=[]", "test.subsets=none"]
    assert run_with(plant, tables, tmp_path / "run", balance, *short) == 0
    assert len(plant.before) == 3 and same(plant.before[1], plant.after[1])


def test_a_weight_that_is_not_finite_ends_training_at_the_last_good_checkpoint(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant = Plant(4, spoil_a_weight)
    given = ["trainer.max_nonfinite_steps=1", "checkpoint.every_n_steps=1", "callbacks=[]"]
    assert run_with(plant, tables, tmp_path / "run", *given, report=True) == 2
    output = capsys.readouterr().err
    assert "training stopped at step 5: 2 steps in a row were not finite, and trainer.max_nonfinite_steps=1" in output
    assert "the first tensor that is not finite: 1 of " in output and f"encoders.text.{WEIGHT}" in output
    assert f"{tmp_path / 'run' / 'checkpoints' / 'last.ckpt'} is the last good checkpoint" in output
    assert "has NaN at step 4; the existing checkpoint is kept" in output and "Traceback" not in output
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 3
    assert all(t.isfinite().all() for t in checkpoint["state_dict"].values())
    assert f"encoders.text.{WEIGHT}" in (tmp_path / "run" / "report.html").read_text()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    assert run_tiny(tables, tmp_path / "run", "trainer.max_epochs=1", *given, "resume=auto") == 0
    assert not (tmp_path / "run" / "skipped.jsonl").exists(), "those steps came again, and were finite"


def test_weights_that_overflow_before_the_validation_are_explained(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "optimizer.lr=1e20",
        "trainer.gradient_clip_val=null",
        "task=[classification]",
        "trainer.max_nonfinite_steps=100",
    ]
    assert run_tiny(tables, tmp_path / "run", *given) == 2
    output = capsys.readouterr().err
    assert "training stopped: classification of label: a logit is not finite\n" in output and "Traceback" not in output
    assert "every weight is finite; the largest is " in output or "the first weight that is not finite: " in output
    assert "no checkpoint was written before" in output
    assert "fix: resume with resume=auto and a lower optimizer.lr or trainer.gradient_clip_val" in output
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


def test_weights_of_a_checkpoint_that_are_not_finite_are_explained_in_a_test(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert run_tiny(tables, folder, "task=[classification]", "trainer.max_epochs=1") == 0
    best = folder / "checkpoints" / "best.ckpt"
    checkpoint = dict(load_checkpoint(best))
    checkpoint["state_dict"] = {n: t.clone() for n, t in checkpoint["state_dict"].items()}
    checkpoint["state_dict"][f"model.encoders.text.{WEIGHT}"].fill_(NAN)
    write_checkpoint(checkpoint, best)
    assert run_tiny(tables, folder, "task=[classification]", "mode=test") == 2
    output = capsys.readouterr().err
    assert "classification of label: a logit is not finite\n" in output and "Traceback" not in output
    assert "the first weight that is not finite: " in output and f"values of encoders.text.{WEIGHT}\n" in output
    assert "fix: use another checkpoint of the run with resume=PATH" in output


class Spoiling(torch.nn.Module):
    """Gives NaN for one row."""

    def __init__(self, inside: torch.nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, values: torch.Tensor, mask: Any) -> Any:
        tokens, valid = self.inside(values, mask)
        return type(self.inside(values, mask))(tokens.index_fill(0, torch.tensor([2]), NAN), valid)


def test_what_a_module_gives_and_gradients_are_named(tables: Path, tmp_path: Path) -> None:
    seen: list[tuple[LitModel, Batch]] = []
    assert run_with(Plant(1, lambda lit, window: seen.append((lit, window[0]))), tables, tmp_path / "run") == 0
    (lit, batch) = seen[0]
    model = lit.model.train()
    model.zero_grad()
    assert explain(model, [batch], {"contrastive": 1.0}).first == "the norm of all gradients"
    assert explain(model, [batch], {"contrastive": NAN}).first == "the loss of contrastive"
    model.encoders["image"].cls_token.grad = torch.full_like(model.encoders["image"].cls_token, NAN)
    assert explain(model, [batch], {"contrastive": 1.0}).first == "the gradient of encoders.image.cls_token"
    inside = model.encoders["text"]
    model.encoders["text"] = Spoiling(inside)
    result = explain(model, [batch], {"contrastive": NAN})
    assert result.first == "what encoders.text (Spoiling) gives"
    available = [id for id, has in zip(batch.ids, batch.present["text"].tolist(), strict=True) if has]
    assert result.ids == [available[2]]
