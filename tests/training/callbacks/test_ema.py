"""Averages of weights: what is learned is averaged, a constant stays to the last bit."""

import json
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmtrain.training.callbacks.ema import EMA, warmup_decay
from tests.runs import run_tiny
from tests.tiny import make_tables

DECAY, STEPS = 0.98, 40


class Learner(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.line = nn.Linear(3, 1)
        self.seen: list[Tensor] = []
        self.register_buffer("constant", torch.rand(500, generator=torch.Generator().manual_seed(0)), persistent=False)
        self.register_buffer("nothing", None, persistent=False)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.line(self.norm(batch)).square().mean()

    def on_train_batch_end(self, *args: object) -> None:
        self.seen.append(self.line.weight.detach().clone())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_what_is_learned_is_averaged_and_a_constant_is_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    learner, ema = Learner(), EMA(decay=DECAY)
    before = learner.constant.clone()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    options = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "default_root_dir": tmp_path}
    trainer = Trainer(callbacks=[ema], **options, **quiet)
    trainer.fit(learner, DataLoader(torch.randn(8 * STEPS, 3), batch_size=8))
    assert ema._average_model is not None
    assert torch.equal(ema._average_model.module.constant, before)
    expected = learner.seen[0]
    for n, weight in enumerate(learner.seen[1:], start=1):
        kept = min(DECAY, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * weight
    torch.testing.assert_close(learner.line.weight.detach(), expected)
    drifting = before.clone()
    for _ in range(STEPS):
        drifting = DECAY * drifting + (1 - DECAY) * before
    assert not torch.equal(drifting, before)  # what would have come of it


@pytest.mark.parametrize("steps", [2, 16, 21, 60, 400, 2000])
def test_a_short_run_is_not_judged_where_it_began(steps: int) -> None:
    """How much of the average is of weights from the first half: little, and never more than without warm-up."""
    shares, plain = [1.0], [1.0]
    for n in range(1, steps):
        shares = [*(warmup_decay(DECAY, n) * share for share in shares), 1 - warmup_decay(DECAY, n)]
        plain = [*(DECAY * share for share in plain), 1 - DECAY]
    early, before = sum(shares[: steps // 2]), sum(plain[: steps // 2])
    assert sum(shares) == pytest.approx(1)
    assert early <= before + 1e-12
    assert early < 0.2
    assert shares[0] < 0.01 or steps == 2


def test_the_warm_up_ends_at_the_decay() -> None:
    assert warmup_decay(0.98, 439) < 0.98 == warmup_decay(0.98, 440) == warmup_decay(0.98, 10**6)
    assert warmup_decay(0.0, 5) == 0.0


@pytest.mark.parametrize("decay", [-0.1, 1.5])
def test_a_decay_that_makes_no_sense_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=f"decay = {decay}; set it between 0 and 1"):
        EMA(decay=decay)


def test_an_average_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The warm-up too: the number of updates is in the checkpoint."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    data = DataLoader(torch.randn(40, 3, generator=torch.Generator().manual_seed(1)), batch_size=8)
    results = []
    for parts in ([4], [2, 4]):
        torch.manual_seed(0)
        checkpoint = None
        for epochs in parts:
            learner, ema = Learner(), EMA(decay=DECAY)
            trainer = Trainer(callbacks=[ema], max_epochs=epochs, default_root_dir=tmp_path / str(parts), **quiet)
            trainer.fit(learner, data, ckpt_path=checkpoint)
            checkpoint = trainer.checkpoint_callback.best_model_path
        results.append(learner.line.weight.detach().clone())
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("given", "weights", "note"),
    [
        ([], "average", None),
        (["~callbacks.ema"], "current", None),
        (["callbacks=[]"], "current", None),
        (["callbacks=[ema,ledger]"], "average", None),
        (["callbacks=[ledger]"], "current", "set callbacks=[ema,ledger] to keep it"),
    ],
)
def test_a_run_says_which_weights_it_evaluates(
    given: list[str], weights: str, note: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables, folder = make_tables(tmp_path / "data"), tmp_path / "run"
    assert run_tiny(tables, folder, "task=[classification]", "trainer.max_epochs=1", *given, report=True) == 0
    output = capsys.readouterr().out
    words = {"average": "the moving average of the weights", "current": "the current weights"}[weights]
    assert output.count(f"validation and test evaluate {words}") == 1
    assert ("replaces the default callbacks=[ema], which turns ema off" in output) == (note is not None)
    assert note is None or note in output
    assert json.loads((folder / "summary.json").read_text())["evaluated_weights"] == weights
    page = (folder / "report.html").read_text()
    assert ("val (average of weights)" in page) == (weights == "average")
    assert run_tiny(tables, folder, "task=[classification]", "mode=test", *given) == 0
    assert f"best.ckpt (step 6): {words}" in capsys.readouterr().out
