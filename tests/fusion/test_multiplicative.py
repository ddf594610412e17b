"""Multiplicative against its formula, one sample at a time, from valid tokens only."""

from itertools import combinations

import pytest
from torch import Tensor

from mmtrain.fusion.multiplicative import Multiplicative
from tests.plain_attention import make_random
from tests.plain_vectors import DIMS, assert_fuses, vectors


def make(
    dims: dict[str, int], factor_dim: int | None, missing: str = "identity", max_size: int = 1000
) -> Multiplicative:
    fusion = Multiplicative(dims=dims, dim=6, factor_dim=factor_dim, dropout=0.0, missing=missing, max_size=max_size)
    make_random(fusion)
    return fusion


def plain(fusion: Multiplicative, tokens: dict[str, Tensor], modalities: list[str]) -> Tensor:
    """Loops over every entry of every pair."""
    x = vectors(tokens, fusion.vectors.norms)
    for m in modalities:
        learned = fusion.absent[m].learned
        if m not in x and learned is not None:
            x[m] = learned[m]
    total, start = fusion.linear.bias, 0
    for m in modalities:
        if m in x:
            total = total + fusion.linear.weight[:, start : start + DIMS[m]] @ x[m]
        start += DIMS[m]
    factors = {m: fusion.factors[m].weight @ v if m in fusion.factors else v for m, v in x.items()}
    for m, n in combinations(modalities, 2):
        if m not in x or n not in x:
            continue
        weight = fusion.products[f"{m}*{n}"].weight
        for i, left in enumerate(factors[m]):
            for j, right in enumerate(factors[n]):
                total = total + left * weight[:, i, j] * right
    return total.unsqueeze(0)


@pytest.mark.parametrize("missing", ["identity", "learned"])
@pytest.mark.parametrize("factor_dim", [2, None])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(
    modalities: tuple[str, ...], factor_dim: int | None, missing: str
) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, factor_dim, missing)
    assert_fuses(fusion, lambda tokens: plain(fusion, tokens, sorted(modalities)), modalities)


def test_one_modality_has_a_linear_map_alone() -> None:
    fusion = make({"text": 3}, 2)
    assert {name for name, _ in fusion.named_parameters() if not name.startswith("vectors.")} == {
        "linear.weight",
        "linear.bias",
    }
    assert_fuses(fusion, lambda tokens: plain(fusion, tokens, ["text"]), ("text",))


def test_missing_has_two_names() -> None:
    with pytest.raises(ValueError, match="missing = zero; set it to identity or learned"):
        make(DIMS, 2, "zero")


def test_too_many_weights_are_refused_with_their_number_and_the_mend() -> None:
    three = dict.fromkeys(["a", "b", "c"], 256)
    message = (
        r"pairs of a \(256\), b \(256\), c \(256\) would have 1.2e\+06 weights with dim = 6, but max_size = 1800; "
    )
    with pytest.raises(ValueError, match=message + "set factor_dim to 10 or less, or choose fusion=low_rank"):
        make(three, None, max_size=1800)
    make(three, 10, max_size=1800)  # 6 * 3 * 10 * 10
    with pytest.raises(ValueError, match="max_size = 1799; set factor_dim to 9 or less"):
        make(three, 10, max_size=1799)
    with pytest.raises(ValueError, match="max_size = 17; raise max_size, or choose"):
        make(three, 1, max_size=17)
