"""LowRank against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.fusion.low_rank import LowRank
from mmtrain.types import Features
from tests.plain_attention import make_random, norm
from tests.plain_vectors import DIMS, Vectors, assert_fuses_vectors


def make(dims: dict[str, int], missing: str) -> LowRank:
    fusion = LowRank(dims=dims, dim=6, rank=2, dropout=0.0, missing=missing)
    make_random(fusion)
    return fusion


def plain(fusion: LowRank, vectors: Vectors) -> Tensor:
    """`vectors` has None for a missing modality."""
    with_one = {}
    for modality, x in vectors.items():
        learned = fusion.absent[modality].learned
        missing = torch.zeros(DIMS[modality], dtype=torch.float64) if learned is None else learned[modality]
        with_one[modality] = torch.cat([missing if x is None else x, torch.ones(1, dtype=torch.float64)])
    total = torch.zeros(6, dtype=torch.float64)
    for rank in range(2):
        product = torch.ones(6, dtype=torch.float64)
        for modality, x in with_one.items():
            weight = torch.cat([fusion.factors[modality].weight, fusion.factors[modality].bias[:, None]], dim=1)
            product = product * (weight[6 * rank : 6 * rank + 6] @ x)
        total = total + product
    return total


@pytest.mark.parametrize("missing", ["identity", "learned"])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...], missing: str) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, missing)
    assert_fuses_vectors(fusion, lambda vectors: plain(fusion, vectors))


def test_it_is_a_linear_map_of_the_outer_product() -> None:
    """Weights as in the paper: W[k] = sum over rank of the outer product of the modalities' rows."""
    fusion = make(DIMS, "identity")
    rows = []
    for modality in sorted(DIMS):
        layer = fusion.factors[modality]
        rows.append(torch.cat([layer.weight, layer.bias[:, None]], dim=1).unflatten(0, (2, 6)))
    weight = torch.einsum("rka,rkb,rkc->kabc", *rows)
    tokens = {m: torch.randn(2, 1, width, dtype=torch.float64) for m, width in DIMS.items()}
    out, _ = fusion({m: Features(x, torch.ones(2, 1, dtype=torch.bool)) for m, x in tokens.items()})
    for row in range(2):
        factors = [F.pad(norm(tokens[m][row, 0], fusion.vectors.norms[m]), (0, 1), value=1.0) for m in sorted(DIMS)]
        expected = torch.einsum("kabc,a,b,c->k", weight, *factors)
        torch.testing.assert_close(out[row, 0], expected, rtol=0, atol=1e-12)
