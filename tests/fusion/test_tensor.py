"""TensorFusion against its formula, one sample at a time, from valid tokens only."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from mmtrain.fusion.tensor import TensorFusion
from mmtrain.types import Features
from tests.plain_attention import make_random, norm
from tests.plain_vectors import DIMS, Vectors, assert_fuses_vectors


def make(dims: dict[str, int], missing: str, factor_dim: int | None) -> TensorFusion:
    fusion = TensorFusion(
        dims=dims, dim=6, factor_dim=factor_dim, hidden_dim=7, dropout=0.0, missing=missing, max_size=1000
    )
    make_random(fusion)
    return fusion


def plain(fusion: TensorFusion, vectors: Vectors) -> Tensor:
    """`vectors` has None for a missing modality."""
    factors = []
    for modality, x in vectors.items():
        if x is not None:
            factor = x
            if isinstance(fusion.factors[modality], nn.Linear):
                factor = fusion.factors[modality].weight @ factor + fusion.factors[modality].bias
        elif fusion.absent[modality].learned is None:
            factor = factor_of_zeros(fusion, modality)
        else:
            factor = fusion.absent[modality].learned[modality]
        factors.append([*factor, torch.ones((), dtype=torch.float64)])
    product = torch.stack([math.prod(choice) for choice in itertools.product(*factors)])
    hidden = fusion.mlp.fc1.weight @ product + fusion.mlp.fc1.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return fusion.mlp.fc2.weight @ hidden + fusion.mlp.fc2.bias


def factor_of_zeros(fusion: TensorFusion, modality: str) -> Tensor:
    layer = fusion.factors[modality]
    return torch.zeros(layer.out_features if isinstance(layer, nn.Linear) else DIMS[modality], dtype=torch.float64)


@pytest.mark.parametrize("missing", ["identity", "learned"])
@pytest.mark.parametrize("factor_dim", [2, None])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(
    modalities: tuple[str, ...], factor_dim: int | None, missing: str
) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, missing, factor_dim)
    assert_fuses_vectors(fusion, lambda vectors: plain(fusion, vectors))


def test_a_lacking_modality_leaves_the_products_of_the_others() -> None:
    """With zeros and a 1, only the last slice of the (2 + 1) x (3 + 1) tensor is not zero: the other vector and a 1."""
    fusion, seen = make({"image": 2, "text": 3}, "identity", None), []
    fusion.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0].unflatten(1, (3, 4))))
    there, missing = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.bool)
    text = torch.randn(1, 1, 3, dtype=torch.float64)
    fusion({"image": Features(torch.randn(1, 1, 2, dtype=torch.float64), missing), "text": Features(text, there)})
    assert not seen[0][0, :2].any()
    torch.testing.assert_close(seen[0][0, 2, :3], norm(text[0, 0], fusion.vectors.norms["text"]), rtol=0, atol=1e-12)
    assert seen[0][0, 2, 3] == 1


def test_a_large_product_is_refused_with_its_size_and_the_mend() -> None:
    four = dict.fromkeys(["a", "b", "c", "d"], 256)
    sizes = {"dim": 8, "hidden_dim": 4, "dropout": 0.0, "missing": "identity"}
    message = (
        r"tensor of a \(256\), b \(256\), c \(256\), d \(256\) would have 4.4e\+09 numbers a sample, but max_size ="
    )
    with pytest.raises(ValueError, match=message + r" 10000; set factor_dim to 9 or less, or choose fusion=low_rank"):
        TensorFusion(dims=four, factor_dim=None, max_size=10000, **sizes)
    TensorFusion(dims=four, factor_dim=9, max_size=10000, **sizes)  # (9 + 1) ** 4
    with pytest.raises(ValueError, match="max_size = 9999; set factor_dim to 8 or less"):
        TensorFusion(dims=four, factor_dim=9, max_size=9999, **sizes)
    with pytest.raises(ValueError, match="max_size = 15; raise max_size, or choose"):
        TensorFusion(dims=four, factor_dim=1, max_size=15, **sizes)
