"""The shared vocabulary: what is under a False mask, which rows, which device."""

import ast
import math
from pathlib import Path

import pytest
import torch

import mmtrain.types
from mmtrain.types import Batch, Features, Sample
from tests.batches import make_batch, random_batch

MASK = torch.tensor([[True, False], [False, False], [True, True]])


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_cleared_features_hold_nothing_under_a_false_mask(garbage: float) -> None:
    tokens = torch.randn(3, 2, 4).masked_fill(~MASK.unsqueeze(-1), garbage).requires_grad_()
    cleared, mask = Features(tokens, MASK).cleared()
    assert torch.equal(mask, MASK)
    assert torch.equal(cleared[MASK], tokens[MASK])
    assert not cleared[~MASK].any()
    cleared.square().sum().backward()
    assert torch.equal(tokens.grad, torch.where(MASK.unsqueeze(-1), 2 * cleared, 0.0))


def test_taken_rows_come_in_the_order_asked_for() -> None:
    features = Features(torch.randn(3, 2, 4), MASK)
    taken = features.take(torch.tensor([2, 0, 0]))
    for place, row in enumerate((2, 0, 0)):
        assert torch.equal(taken.tokens[place], features.tokens[row])
        assert torch.equal(taken.mask[place], MASK[row])


def test_a_batch_with_only_some_modalities_keeps_all_else() -> None:
    batch = random_batch(0)
    part = batch.only(["text"])
    assert torch.equal(part.present["text"], batch.present["text"])
    assert not part.present["image"].any() and batch.present["image"].any()
    assert part.present["image"].dtype is torch.bool
    for name in ("ids", "rows", "inputs", "targets", "labelled", "keys"):
        assert getattr(part, name) is getattr(batch, name)


def tensors(batch: Batch) -> list[torch.Tensor]:
    inputs = [t for padded in batch.inputs.values() for t in padded if t is not None]
    dicts = (batch.present, batch.targets, batch.labelled, batch.keys)
    return [batch.rows, batch.draws, *inputs, *(t for group in dicts for t in group.values())]


def test_map_reaches_every_tensor() -> None:
    batch = random_batch(0)
    seen: list[torch.Tensor] = []
    same = batch.map(lambda tensor: seen.append(tensor) or tensor)
    assert sorted(map(id, seen)) == sorted(map(id, tensors(batch)))
    assert same == batch
    assert batch.inputs["image"].mask is None and same.inputs["image"].mask is None


def test_to_moves_every_tensor() -> None:
    moved = random_batch(0).to("meta")
    assert {tensor.device.type for tensor in tensors(moved)} == {"meta"}
    assert moved.ids == random_batch(0).ids


@pytest.mark.gpu
def test_pinned_memory_is_every_tensor_s() -> None:
    assert all(tensor.is_pinned() for tensor in tensors(random_batch(0).pin_memory()))


def test_the_length_is_the_number_of_rows() -> None:
    assert len(make_batch([1, 0], [0, 0])) == 2


def test_a_filler_holds_nothing() -> None:
    assert Sample() == Sample(id="", row=-1, inputs={}, targets={}, keys={})
    assert Sample().inputs is not Sample().inputs


def test_the_vocabulary_imports_torch_and_nothing_else() -> None:
    tree = ast.parse(Path(mmtrain.types.__file__).read_text())
    names = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"collections", "dataclasses", "typing", "torch"}
