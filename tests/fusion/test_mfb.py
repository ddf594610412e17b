"""MFB against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.mfb import MFB
from tests.plain_attention import make_random
from tests.plain_vectors import DIMS, Vectors, assert_fuses_vectors, factor_of_missing, power_normed


def make(dims: dict[str, int], missing: str) -> MFB:
    fusion = MFB(dims=dims, dim=6, joint_dim=5, num_factors=3, dropout=0.0, missing=missing)
    make_random(fusion)
    return fusion


def plain(fusion: MFB, vectors: Vectors) -> Tensor:
    """`vectors` has None for a missing modality."""
    product = torch.ones(15, dtype=torch.float64)
    for modality, x in vectors.items():
        factor = factor_of_missing(fusion, modality, product)
        if x is not None:
            layer = fusion.projections[modality]
            factor = layer.weight @ x + layer.bias
        product = product * factor
    pooled = torch.stack([product[3 * i] + product[3 * i + 1] + product[3 * i + 2] for i in range(5)])
    return fusion.out.weight @ power_normed(pooled) + fusion.out.bias


@pytest.mark.parametrize("missing", ["identity", "learned"])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...], missing: str) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, missing)
    assert_fuses_vectors(fusion, lambda vectors: plain(fusion, vectors))
