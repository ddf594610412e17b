"""Sum against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.sum import Sum
from mmtrain.types import Features
from tests.plain_attention import linear, make_random, mlp, norm
from tests.plain_vectors import DIMS, assert_fuses, vectors


def make(dims: dict[str, int], *, average: bool, missing: str) -> Sum:
    fusion = Sum(dims=dims, dim=6, average=average, hidden_dim=7, dropout=0.0, missing=missing)
    make_random(fusion)
    return fusion


def plain(fusion: Sum, tokens: dict[str, Tensor]) -> Tensor:
    added = [linear(x, fusion.projections[m]) for m, x in vectors(tokens, fusion.vectors.norms).items()]
    if fusion.absent.learned is not None:
        added += [vector for m, vector in fusion.absent.learned.items() if m not in tokens]
    joint = torch.zeros(6, dtype=torch.float64)
    for part in added:
        joint = joint + part / (len(added) if fusion.average else 1)
    return (joint + mlp(norm(joint, fusion.norm), fusion.mlp)).unsqueeze(0)


@pytest.mark.parametrize("missing", ["identity", "learned"])
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(
    modalities: tuple[str, ...], average: bool, missing: str
) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, average=average, missing=missing)
    assert_fuses(fusion, lambda tokens: plain(fusion, tokens), modalities)


@pytest.mark.parametrize("average", [False, True])
def test_neutral_is_what_a_fusion_without_the_modality_gives(average: bool) -> None:
    both, alone = (make(dims, average=average, missing="identity") for dims in (DIMS, {"image": 4}))
    alone.load_state_dict({name: both.state_dict()[name] for name in alone.state_dict()})
    image = Features(torch.randn(2, 3, 4, dtype=torch.float64), torch.ones(2, 3, dtype=torch.bool))
    missing = {m: Features(torch.randn(2, 2, DIMS[m]).double(), torch.zeros(2, 2).bool()) for m in ("text", "audio")}
    torch.testing.assert_close(
        both({"image": image, **missing}).tokens, alone({"image": image}).tokens, rtol=0, atol=1e-14
    )


def test_missing_has_two_names() -> None:
    with pytest.raises(ValueError, match="missing = zero; set it to identity or learned"):
        make(DIMS, average=False, missing="zero")
