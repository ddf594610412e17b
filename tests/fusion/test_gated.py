"""Gated against its formulas, bimodal and multimodal, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.gated import Gated
from tests.plain_attention import make_random
from tests.plain_vectors import DIMS, assert_fuses, vectors


def make(dims: dict[str, int], missing: str) -> Gated:
    fusion = Gated(dims=dims, dim=6, dropout=0.0, missing=missing)
    make_random(fusion)
    return fusion


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def squashed(x: Tensor) -> Tensor:
    return (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x))


def read_by_gates(fusion: Gated, there: dict[str, Tensor]) -> Tensor:
    parts = []
    for m in sorted(fusion.vectors.norms):
        learned = fusion.absent[m].learned
        parts.append(there.get(m, torch.zeros(DIMS[m], dtype=torch.float64) if learned is None else learned[m]))
    return torch.cat(parts)


def bimodal(fusion: Gated, tokens: dict[str, Tensor]) -> Tensor:
    there = vectors(tokens, fusion.vectors.norms)
    z = sigmoid(fusion.gates["image"].weight @ read_by_gates(fusion, there))
    h = {m: squashed(fusion.hidden[m].weight @ x) for m, x in there.items()}
    return (z * h.get("image", 0) + (1 - z) * h.get("text", 0)).unsqueeze(0)


def multimodal(fusion: Gated, tokens: dict[str, Tensor]) -> Tensor:
    there = vectors(tokens, fusion.vectors.norms)
    together = read_by_gates(fusion, there)
    total = torch.zeros(6, dtype=torch.float64)
    for m, x in there.items():
        total = total + sigmoid(fusion.gates[m].weight @ together) * squashed(fusion.hidden[m].weight @ x)
    return total.unsqueeze(0)


@pytest.mark.parametrize("missing", ["identity", "learned"])
def test_two_modalities_share_a_gate(missing: str) -> None:
    fusion = make({"text": 3, "image": 4}, missing)
    assert list(fusion.gates) == ["image"]
    assert_fuses(fusion, lambda tokens: bimodal(fusion, tokens), ("text", "image"))


@pytest.mark.parametrize("missing", ["identity", "learned"])
def test_three_modalities_have_a_gate_each(missing: str) -> None:
    fusion = make(DIMS, missing)
    assert_fuses(fusion, lambda tokens: multimodal(fusion, tokens), tuple(DIMS))


def test_one_modality_gates_itself() -> None:
    fusion = make({"text": 3}, "identity")
    assert_fuses(fusion, lambda tokens: multimodal(fusion, tokens), ("text",))


def test_there_are_no_biases() -> None:
    names = [name for name, _ in make(DIMS, "identity").named_parameters() if not name.startswith("vectors.")]
    assert sorted(names) == sorted(f"{part}.{m}.weight" for part in ("gates", "hidden") for m in DIMS)


def test_missing_has_two_names() -> None:
    with pytest.raises(ValueError, match="missing = zero; set it to identity or learned"):
        make(DIMS, "zero")
