"""Invariants of every fusion: masks, any number of modalities, independent samples."""

import math
import re

import pytest
import torch
from torch import Tensor, nn

from mmtrain.types import Features
from tests.batches import DIM, assert_same_bits, gradients, make_fusion
from tests.fusions import FUSIONS, PAIRWISE, WITH_MAPS

# name -> (width, tokens); not in alphabetical order, to detect a fusion that relies on the order
KINDS = {"text": (8, 5), "image": (6, 3), "audio": (4, 7), "video": (10, 1), "depth": (8, 2)}
ROWS = 7

every_fusion = pytest.mark.parametrize("name", FUSIONS)
every_fusion_of_any_number = pytest.mark.parametrize(
    ("name", "number"), [(name, n) for name in FUSIONS for n in (1, 2, 3, 5) if n > 1 or name not in PAIRWISE]
)


def make(name: str, number: int) -> nn.Module:
    """Return a float64 fusion of the first modalities, without zero weights."""
    fusion = make_fusion(name, {m: width for m, (width, _) in list(KINDS.items())[:number]}).double()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.4)
    return fusion


def make_features(number: int) -> dict[str, Features]:
    """Row 0 has all modalities, row 1 none. Each later row misses one modality and some tokens of the others."""
    features = {}
    for place, (modality, (width, length)) in enumerate(list(KINDS.items())[:number]):
        mask = torch.rand(ROWS, length) < 0.6
        mask[:, -1] = True
        mask[0] = True
        mask[1] = False
        mask[2 + place :: number] = False
        features[modality] = Features(torch.randn(ROWS, length, width, dtype=torch.float64), mask)
    return features


def run(fusion: nn.Module, features: dict[str, Features]) -> dict[str, Tensor]:
    """Return the output, the gradient of every parameter and of every input."""
    fusion.zero_grad()
    leaves = {m: f.tokens.clone().requires_grad_() for m, f in features.items()}
    out = fusion({m: Features(leaves[m], f.mask) for m, f in features.items()})
    generator = torch.Generator().manual_seed(0)
    (out.tokens * torch.randn(out.tokens.shape, generator=generator, dtype=torch.float64)).sum().backward()
    results = {"tokens": out.tokens.detach(), "mask": out.mask, **gradients(fusion)}
    return results | {f"input.{m}": leaf.grad for m, leaf in leaves.items()}


@every_fusion_of_any_number
def test_shapes_and_mask(name: str, number: int) -> None:
    fusion, features = make(name, number), make_features(number)
    tokens, mask = fusion(features)
    assert tokens.shape == (*mask.shape, DIM) and fusion.dim == DIM
    assert mask.dtype is torch.bool
    present = torch.stack([f.mask.any(dim=1) for f in features.values()]).any(dim=0)
    assert torch.equal(mask.any(dim=1), present)
    assert not tokens[~mask].any()


@every_fusion_of_any_number
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_what_stands_under_a_false_mask_changes_no_bit(name: str, number: int, garbage: float) -> None:
    fusion, features = make(name, number), make_features(number)
    dirty = {m: Features(torch.where(f.mask.unsqueeze(-1), f.tokens, garbage), f.mask) for m, f in features.items()}
    clean = run(fusion, features)
    assert all(value.isfinite().all() for value in clean.values())
    assert_same_bits(clean, run(fusion, dirty))
    for modality, (_, mask) in features.items():
        assert not clean[f"input.{modality}"][~mask].any()


@every_fusion_of_any_number
def test_a_sample_does_not_depend_on_its_batch(name: str, number: int) -> None:
    fusion, features = make(name, number), make_features(number)
    together = fusion(features)
    for row in range(ROWS):
        alone = fusion({m: f.take(torch.tensor([row])) for m, f in features.items()})
        assert torch.equal(alone.mask[0], together.mask[row])
        torch.testing.assert_close(alone.tokens[0], together.tokens[row], rtol=0, atol=1e-12)


@every_fusion_of_any_number
def test_more_padding_changes_nothing(name: str, number: int) -> None:
    fusion, features = make(name, number), make_features(number)
    longer = {
        m: Features(nn.functional.pad(f.tokens, (0, 0, 0, 2)), nn.functional.pad(f.mask, (0, 2)))
        for m, f in features.items()
    }
    short, long = fusion(features), fusion(longer)
    for row in range(ROWS):
        valid = [tokens[row, mask[row]] for tokens, mask in (short, long)]
        torch.testing.assert_close(*valid, rtol=0, atol=1e-12)


@every_fusion
def test_the_order_of_dicts_does_not_matter(name: str) -> None:
    forward = {m: width for m, (width, _) in KINDS.items()}
    one, other = make_fusion(name, forward).double(), make_fusion(name, dict(reversed(forward.items()))).double()
    other.load_state_dict(one.state_dict())
    features = make_features(5)
    assert_same_bits(run(one, features), run(other, dict(reversed(features.items()))))


@every_fusion
@pytest.mark.parametrize("number", [2, 3, 5])
def test_a_missing_modality_is_not_the_same_as_zeros(name: str, number: int) -> None:
    fusion, features = make(name, number), make_features(number)
    tokens, mask = features["text"]
    zeros = fusion(features | {"text": Features(torch.zeros_like(tokens), mask)})
    absent = fusion(features | {"text": Features(tokens, torch.zeros_like(mask))})
    both = zeros.mask[0] & absent.mask[0]
    if name != "late" and both.any():  # excluded: tokens that never mix, or others, such as a substitute for the text
        assert not torch.allclose(zeros.tokens[0, both], absent.tokens[0, both])
    else:
        assert absent.mask[0].any() and not torch.equal(zeros.mask[0], absent.mask[0])


@every_fusion_of_any_number
@pytest.mark.parametrize("missing", ["text", "everything"])
def test_every_parameter_gets_a_gradient_whatever_the_batch_lacks(name: str, number: int, missing: str) -> None:
    fusion, features = make(name, number), make_features(number)
    for modality, (tokens, mask) in features.items():
        if missing in (modality, "everything"):
            features[modality] = Features(tokens, torch.zeros_like(mask))
    result = run(fusion, features)  # `gradients` inside fails on None
    assert all(value.isfinite().all() for value in result.values())
    if missing == "everything":
        assert not any(gradient.any() for gradient in result.values())


@every_fusion_of_any_number
def test_every_parameter_is_saved_and_matters(name: str, number: int) -> None:
    """Concat's vector for a missing modality matters only with two or more modalities.

    Queries do not matter for a sequence of one token, because its attention weight is always 1.
    """
    fusion, features = make(name, number), make_features(number)
    before = fusion(features).tokens
    copy = make(name, number)
    copy.load_state_dict(fusion.state_dict())
    assert torch.equal(copy(features).tokens, before)
    result = run(fusion, features)
    of_one_token = re.compile(r".*\.stacks\.video\..*(read\.norm\.|attn\.q\.).*")
    names = [n for n, _ in fusion.named_parameters() if not (name == "mult" and of_one_token.match(n))]
    without_effect = [n for n in names if not result[n].any()]
    assert without_effect == (["absent.text"] if name == "concat" and number == 1 else [])


@every_fusion
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_runs(name: str, autocast: bool) -> None:
    fusion, features = make(name, 3).float(), make_features(3)
    dtype = torch.float32 if autocast else torch.bfloat16
    fusion.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tokens, _ = fusion({m: Features(f.tokens.to(dtype), f.mask) for m, f in features.items()})
    assert tokens.isfinite().all()
    tokens.float().sum().backward()
    assert all(gradient.isfinite().all() for gradient in gradients(fusion).values())
    exact = fusion.double()(features).tokens
    torch.testing.assert_close(tokens.double(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


@every_fusion
def test_dropout_is_for_training_only(name: str) -> None:
    fusion, features = make(name, 2), make_features(2)
    for module in fusion.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    assert not torch.equal(fusion(features).tokens, fusion(features).tokens)
    fusion.eval()
    assert torch.equal(fusion(features).tokens, fusion(features).tokens)


@pytest.mark.parametrize("name", PAIRWISE)
def test_one_modality_is_refused_with_a_mend(name: str) -> None:
    with pytest.raises(ValueError, match="choose fusion=concat"):
        make(name, 1)


@pytest.mark.parametrize("name", WITH_MAPS)
@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_maps_of_attention(name: str, number: int) -> None:
    """Maps do not change the output, sum to 1, and are 0 for invalid tokens."""
    fusion, features = make(name, number).eval(), make_features(number)
    expected = fusion(features)
    fused, maps = fusion(features, return_attention=True)
    assert_same_bits({"t": fused.tokens, "m": fused.mask}, {"t": expected.tokens, "m": expected.mask})
    assert {modality for pair in maps for modality in pair} <= {*features, "fused"}
    assert set(features) <= {key for _, key in maps} | ({"text"} if name == "q_former" and number == 1 else set())
    for (query, key), weights in maps.items():
        assert weights.isfinite().all() and (weights >= 0).all()
        assert (weights.sum(dim=2) <= 1 + 1e-9).all()
        if key in features:
            assert weights.shape[2] == features[key].mask.shape[1]
            assert not weights.transpose(1, 2)[~features[key].mask].any()
        if query in features and not (name == "gated_cross_attn" and query == "fused"):
            assert not weights[~features[query].mask].any()
    assert not any(weights[1].any() for weights in maps.values())  # row 1 is empty
