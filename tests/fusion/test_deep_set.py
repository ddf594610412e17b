"""DeepSet against its formula, one sample at a time, token by token."""

import math

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.deep_set import DeepSet
from tests.plain_attention import linear, make_random, mlp, norm
from tests.plain_vectors import DIMS, assert_fuses


def make(dims: dict[str, int], pool: str) -> DeepSet:
    fusion = DeepSet(dims=dims, dim=6, hidden_dim=7, pool=pool, dropout=0.0)
    make_random(fusion)
    return fusion


def plain(fusion: DeepSet, tokens: dict[str, Tensor]) -> Tensor:
    elements = []
    for m, given in tokens.items():
        for x in given:
            hidden = linear(norm(x, fusion.phi[m][0]), fusion.phi[m][1])
            elements.append(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)
    total = torch.zeros(7, dtype=torch.float64)
    for element in elements:
        total = total + element
    return mlp(total / len(elements) if fusion.pool == "mean" else total, fusion.rho).unsqueeze(0)


@pytest.mark.parametrize("pool", ["sum", "mean"])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...], pool: str) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, pool)
    assert_fuses(fusion, lambda tokens: plain(fusion, tokens), modalities)


def test_pool_has_two_names() -> None:
    with pytest.raises(ValueError, match="pool = max; set it to sum or mean"):
        make(DIMS, "max")
