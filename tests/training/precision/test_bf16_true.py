"""Weights in bfloat16: what is, what is not, and that every fusion and task gives a loss in 32 bits all the same."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mmtrain.training.fsdp.shard import norm_of
from mmtrain.training.precision.bf16_true import BF16TruePrecision, half_inputs, to_half
from tests.batches import gradients, make_model, random_batch
from tests.config.test_rules import faults
from tests.fusions import FUSIONS
from tests.runs import run_tiny
from tests.steps import make_lit
from tests.tiny import make_tables

ALL = ("contrastive", "classification", "matching", "masked_text", "masked_fusion", "masked_image")


def test_scalars_and_batch_norms_stay_in_32_bits() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LayerNorm(4))
    model.register_parameter("log_scale", nn.Parameter(torch.tensor(0.0)))
    model.register_buffer("table", torch.zeros(3))
    model.register_buffer("count", torch.zeros(3, dtype=torch.long))
    to_half(model)
    half = {n for n, t in [*model.named_parameters(), *model.named_buffers()] if t.dtype == torch.bfloat16}
    assert half == {"0.weight", "0.bias", "2.weight", "2.bias", "table"}
    assert model(torch.randn(5, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_metrics_targets_and_masks_stay() -> None:
    lit, batch = make_lit(), random_batch(0)
    batch.targets["size"] = torch.rand(len(batch))
    plugin = BF16TruePrecision()
    assert plugin.convert_module(lit) is lit
    assert all(p.dtype == torch.bfloat16 for p in lit.model.encoders.parameters())
    assert all(b.dtype != torch.bfloat16 for b in lit.evaluation.buffers())
    (result,) = plugin.convert_input([batch])
    assert result.inputs["image"].values.dtype == torch.bfloat16
    assert result.inputs["text"].values.dtype == torch.long
    assert result.targets["size"].dtype == torch.float32 and torch.equal(result.rows, batch.rows)
    with plugin.forward_context():
        assert torch.zeros(1).dtype == torch.float32


@pytest.mark.parametrize("fusion", FUSIONS)
def test_losses_are_in_32_bits_and_near_those_of_64(fusion: str) -> None:
    tasks = ("contrastive", "classification") if fusion == "late" else ALL
    model, exact, batch = (
        make_model(tasks=tasks, fusion=fusion),
        make_model(tasks=tasks, fusion=fusion),
        random_batch(1, 12),
    )
    to_half(model)
    result = model.eval().losses(half_inputs(batch))
    for name, (total, count) in exact.eval().losses(batch).items():
        assert result[name][0].dtype == torch.float32 and torch.equal(result[name][1], count)
        torch.testing.assert_close(result[name][0].double(), total.double(), rtol=0.1, atol=0.1 * max(1, int(count)))
    torch.stack([total for total, _ in result.values()]).sum().backward()
    assert all(g.isfinite().all() for g in gradients(model).values())


def test_norms_of_gradients_are_in_32_bits() -> None:
    tensors = [torch.randn(50, 20).bfloat16() for _ in range(40)]
    exact = torch.cat([t.double().flatten() for t in tensors]).norm()
    torch.testing.assert_close(norm_of(tensors).double(), exact, rtol=1e-6, atol=0)


def test_a_run_learns(tmp_path: Path) -> None:
    tables = make_tables(tmp_path / "tables")
    options = [
        "trainer.precision=bf16-true",
        "~callbacks.ema",
        "task=[classification]",
        "trainer.max_epochs=12",
        "optimizer.lr=0.01",
    ]
    assert run_tiny(tables, tmp_path / "run", *options) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "done" and summary["best"]["value"] > 0.6
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {t.dtype for name, t in kept.items() if name.endswith("qkv.weight")} == {torch.bfloat16}


def test_averages_do_not_go_with_it() -> None:
    (fault,) = faults("trainer.precision=bf16-true")
    assert fault.startswith(
        "trainer.precision=bf16-true: 16-bit weights cannot be averaged, and callbacks.ema averages them"
    )
    assert fault.endswith("    fix: add ~callbacks.ema, or set trainer.precision=bf16-mixed")
    assert faults("trainer.precision=bf16-true", "~callbacks.ema") == []
    assert any("small gradients become zero" in f for f in faults("trainer.precision=16-true", "~callbacks.ema"))
