"""LowRank against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmtrain.fusion.low_rank import LowRank
from mmtrain.types import Features

DIMS = {"text": 3, "audio": 5, "image": 4}
LENGTHS = {"text": 4, "audio": 2, "image": 1}


def make(dims: dict[str, int], missing: str) -> LowRank:
    fusion = LowRank(dims=dims, dim=6, rank=2, dropout=0.0, missing=missing).double()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.4)
    return fusion


def vector(fusion: LowRank, modality: str, tokens: Tensor) -> Tensor:
    norm = fusion.vectors.norms[modality]
    return F.layer_norm(tokens.sum(dim=0) / len(tokens), norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def plain(fusion: LowRank, tokens: dict[str, Tensor]) -> Tensor:
    """Tokens are (T_m, D_m) by modality in sorted order; T_m = 0 for a missing one."""
    with_one = {}
    for modality, given in tokens.items():
        learned = fusion.absent[modality].learned
        lacking = torch.zeros(DIMS[modality], dtype=torch.float64) if learned is None else learned[modality]
        x = vector(fusion, modality, given) if len(given) else lacking
        with_one[modality] = torch.cat([x, torch.ones(1, dtype=torch.float64)])
    total = torch.zeros(6, dtype=torch.float64)
    for rank in range(2):
        product = torch.ones(6, dtype=torch.float64)
        for modality, x in with_one.items():
            weight = torch.cat([fusion.factors[modality].weight, fusion.factors[modality].bias[:, None]], dim=1)
            product = product * (weight[6 * rank : 6 * rank + 6] @ x)
        total = total + product
    return total


@pytest.mark.parametrize("missing", ["neutral", "learned"])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...], missing: str) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, missing)
    masks = {m: torch.rand(6, LENGTHS[m]) < 0.7 for m in modalities}
    for modality, mask in masks.items():
        mask[0] = True
        mask[1] = modality != "text"
        mask[2] = modality != "image"
        mask[3] = False
        mask[4] = modality == "text"
    tokens = {m: torch.randn(6, LENGTHS[m], DIMS[m], dtype=torch.float64, requires_grad=True) for m in modalities}
    out, mask = fusion({m: Features(tokens[m], masks[m]) for m in modalities})
    assert out.shape == (6, 1, 6) and mask[:, 0].tolist() == [
        any(masks[m][row].any() for m in masks) for row in range(6)
    ]
    rows = [{m: tokens[m][row][masks[m][row]] for m in sorted(modalities)} for row in range(6)]
    expected = torch.stack([plain(fusion, row) if mask[i] else out.new_zeros(6) for i, row in enumerate(rows)])
    torch.testing.assert_close(out[:, 0], expected, rtol=0, atol=1e-11)
    wanted = {**tokens, **dict(fusion.named_parameters())}
    weight = torch.randn_like(expected)
    mine = torch.autograd.grad((out[:, 0] * weight).sum(), list(wanted.values()))
    reference = torch.autograd.grad((expected * weight).sum(), list(wanted.values()))
    for name, one, other in zip(wanted, mine, reference, strict=True):
        assert one.any(), name
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def test_missing_has_two_names() -> None:
    with pytest.raises(ValueError, match="missing = zero; set it to neutral or learned"):
        make(DIMS, "zero")


def test_it_is_a_linear_map_of_the_outer_product() -> None:
    """Weights as in the paper: W[k] = sum over rank of the outer product of the modalities' rows."""
    fusion = make(DIMS, "neutral")
    rows = []
    for modality in sorted(DIMS):
        layer = fusion.factors[modality]
        rows.append(torch.cat([layer.weight, layer.bias[:, None]], dim=1).unflatten(0, (2, 6)))
    weight = torch.einsum("rka,rkb,rkc->kabc", *rows)
    tokens = {m: torch.randn(2, 1, width, dtype=torch.float64) for m, width in DIMS.items()}
    out, _ = fusion({m: Features(x, torch.ones(2, 1, dtype=torch.bool)) for m, x in tokens.items()})
    for row in range(2):
        factors = [F.pad(vector(fusion, m, tokens[m][row]), (0, 1), value=1.0) for m in sorted(DIMS)]
        expected = torch.einsum("kabc,a,b,c->k", weight, *factors)
        torch.testing.assert_close(out[row, 0], expected, rtol=0, atol=1e-12)
