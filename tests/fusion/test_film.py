"""FiLM against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.film import FiLM
from mmtrain.types import Features
from tests.plain_attention import linear, make_random, norm
from tests.plain_vectors import DIMS, assert_fuses, vectors


def make(dims: dict[str, int], base: str | None = None, *, depth: int = 2) -> FiLM:
    fusion = FiLM(dims=dims, dim=6, base=base, depth=depth, dropout=0.0)
    make_random(fusion)
    return fusion


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.0)


def plain(fusion: FiLM, tokens: dict[str, Tensor]) -> Tensor:
    conditions = vectors({m: x for m, x in tokens.items() if m != fusion.base}, fusion.vectors.norms)
    there = fusion.base in tokens
    x = linear(tokens[fusion.base], fusion.projection) if there else fusion.stand_in.unsqueeze(0)
    for layer in fusion.layers:
        hidden = relu(linear(x, layer.inner))
        inner = linear(hidden, layer.outer)
        centred = inner - inner.mean(dim=1, keepdim=True)
        normed = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        gamma, beta = torch.ones(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
        for m, c in conditions.items():
            made = linear(c, layer.generators[m])
            gamma, beta = gamma * (1 + made[:6]), beta + made[6:]
        x = hidden + relu(gamma * normed + beta)
    return norm(x, fusion.norm)


@pytest.mark.parametrize("base", [None, "image"])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(modalities: tuple[str, ...], base: str | None) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, base)
    assert fusion.base == (base or "text")
    assert_fuses(fusion, lambda tokens: plain(fusion, tokens), modalities)


def test_a_stand_in_is_valid_where_the_base_alone_is_lacking() -> None:
    masks = {"text": torch.tensor([[0, 1], [0, 0], [0, 0]]).bool(), "image": torch.tensor([[0], [1], [0]]).bool()}
    features = {m: Features(torch.randn(*mask.shape, DIMS[m]).double(), mask) for m, mask in masks.items()}
    tokens, mask = make({m: DIMS[m] for m in masks})(features)
    assert mask.tolist() == [[False, True], [True, False], [False, False]]
    assert tokens.shape == (3, 2, 6)


def test_the_base_is_text_or_the_first_by_name() -> None:
    assert make({"video": 3, "text": 4, "audio": 5}).base == "text"
    assert make({"video": 3, "image": 4}).base == "image"


def test_what_cannot_be_is_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match="nothing can modulate image, the only modality; choose fusion=concat"):
        make({"image": 4})
    message = "base = video, but the modalities are audio, image, text; set it to one of them or null"
    with pytest.raises(ValueError, match=message):
        make(DIMS, "video")
    with pytest.raises(ValueError, match="depth = 0; set depth to 1 or more"):
        make(DIMS, depth=0)
