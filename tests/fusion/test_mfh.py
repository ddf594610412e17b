"""MFH against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.mfh import MFH
from tests.plain_attention import make_random
from tests.plain_vectors import DIMS, Vectors, assert_fuses_vectors, factor_of_missing, power_normed


def make(dims: dict[str, int], missing: str, order: int) -> MFH:
    fusion = MFH(dims=dims, dim=6, order=order, joint_dim=5, num_factors=3, dropout=0.0, missing=missing)
    make_random(fusion)
    return fusion


def plain(fusion: MFH, vectors: Vectors) -> Tensor:
    """`vectors` has None for a missing modality."""
    expanded, pooled = torch.ones(15, dtype=torch.float64), []
    for block in range(fusion.order):
        part = slice(15 * block, 15 * block + 15)
        for modality, x in vectors.items():
            layer = fusion.projections[modality]
            factor = factor_of_missing(fusion, modality, layer.bias)[part]
            if x is not None:
                factor = layer.weight[part] @ x + layer.bias[part]
            expanded = expanded * factor
        pooled.append(power_normed(torch.stack([sum(expanded[3 * i : 3 * i + 3]) for i in range(5)])))
    return fusion.out.weight @ torch.cat(pooled) + fusion.out.bias


@pytest.mark.parametrize("missing", ["identity", "learned"])
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...], order: int, missing: str) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, missing, order)
    assert_fuses_vectors(fusion, lambda vectors: plain(fusion, vectors))
