"""MLB against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor, nn

from mmtrain.fusion.mlb import MLB
from tests.plain_attention import make_random
from tests.plain_vectors import DIMS, Vectors, assert_fuses_vectors, factor_of_missing


def make(dims: dict[str, int], missing: str, activation: str) -> MLB:
    fusion = MLB(dims=dims, dim=6, joint_dim=5, activation=activation, dropout=0.0, missing=missing)
    make_random(fusion)
    return fusion


def plain(fusion: MLB, vectors: Vectors) -> Tensor:
    """`vectors` has None for a missing modality."""
    product = torch.ones(5, dtype=torch.float64)
    for modality, x in vectors.items():
        factor = factor_of_missing(fusion, modality, product)
        if x is not None:
            layer = fusion.projections[modality]
            factor = layer.weight @ x + layer.bias
            if isinstance(fusion.act, nn.Tanh):
                factor = 1 - 2 / (torch.exp(2 * factor) + 1)
        product = product * factor
    return fusion.out.weight @ product + fusion.out.bias


@pytest.mark.parametrize("missing", ["identity", "learned"])
@pytest.mark.parametrize("activation", ["tanh", "linear"])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(
    modalities: tuple[str, ...], activation: str, missing: str
) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, missing, activation)
    assert_fuses_vectors(fusion, lambda vectors: plain(fusion, vectors))


def test_an_activation_has_a_name() -> None:
    assert isinstance(make(DIMS, "identity", "linear").act, nn.Identity)
    with pytest.raises(ValueError, match="activation = relu; set it to tanh or linear"):
        make(DIMS, "identity", "relu")
