"""Mutan against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.mutan import Mutan
from tests.plain_attention import make_random
from tests.plain_vectors import DIMS, Vectors, assert_fuses_vectors, factor_of_missing


def make(dims: dict[str, int], missing: str) -> Mutan:
    fusion = Mutan(dims=dims, dim=6, factor_dim=3, joint_dim=5, rank=2, dropout=0.0, missing=missing)
    make_random(fusion)
    return fusion


def plain(fusion: Mutan, vectors: Vectors) -> Tensor:
    """`vectors` has None for a missing modality."""
    sides = {}
    for modality, x in vectors.items():
        sides[modality] = factor_of_missing(fusion, modality, torch.ones(10, dtype=torch.float64))
        if x is not None:
            first, second = fusion.factors[modality], fusion.core[modality]
            factor = first.weight @ x + first.bias
            sides[modality] = second.weight @ factor + second.bias
    total = torch.zeros(5, dtype=torch.float64)
    for rank in range(2):
        product = torch.ones(5, dtype=torch.float64)
        for side in sides.values():
            product = product * side[5 * rank : 5 * rank + 5]
        total = total + product
    return fusion.out.weight @ total + fusion.out.bias


@pytest.mark.parametrize("missing", ["identity", "learned"])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...], missing: str) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, missing)
    assert_fuses_vectors(fusion, lambda vectors: plain(fusion, vectors))
