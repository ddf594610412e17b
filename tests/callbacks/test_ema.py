"""Averages of weights: what is learned is averaged, a constant stays to the last bit."""

from pathlib import Path

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmtrain.callbacks.ema import EMA

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
    for weight in learner.seen[1:]:
        expected = DECAY * expected + (1 - DECAY) * weight
    torch.testing.assert_close(learner.line.weight.detach(), expected)
    drifting = before.clone()
    for _ in range(STEPS):
        drifting = DECAY * drifting + (1 - DECAY) * before
    assert not torch.equal(drifting, before)  # what would have come of it
