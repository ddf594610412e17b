"""Heads against their formulas, one row at a time; late fusion over modalities that are present."""

import pytest
import torch
from torch import Tensor, nn

from mmtrain.fusion.late import Late
from mmtrain.layers.head import COMBINATIONS, LateFusionHead, PooledHead, make_head
from mmtrain.types import Features

DIMS = {"text": 3, "audio": 5, "image": 4}
ORDER = ("audio", "image", "text")
CLASSES = 4


def make(combine: str) -> tuple[Late, LateFusionHead]:
    fusion = Late(dims=DIMS, dim=6, dropout=0.0, combine=combine).double()
    head = make_head(6, CLASSES, dropout=0.0, decides=fusion).double()
    assert isinstance(head, LateFusionHead)
    for parameter in [*fusion.parameters(), *head.parameters()]:
        nn.init.normal_(parameter, std=0.5)
    return fusion, head


def make_features() -> dict[str, Features]:
    """Row 0 has all three modalities, row 1 two, row 2 only text, row 3 none."""
    lengths, present = {"text": 4, "audio": 1, "image": 3}, {"text": [0, 1, 2], "audio": [0], "image": [0, 1]}
    features = {}
    for modality, length in lengths.items():
        mask = torch.rand(4, length) < 0.6
        mask[:, 0] = True
        mask[[row for row in range(4) if row not in present[modality]]] = False
        tokens = torch.randn(4, length, DIMS[modality], dtype=torch.float64, requires_grad=True)
        features[modality] = Features(tokens, mask)
    return features


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    return (x - x.mean()) / (x.var(unbiased=False) + layer.eps).sqrt() * layer.weight + layer.bias


def decision(fusion: Late, head: LateFusionHead, modality: str, tokens: Tensor) -> Tensor:
    layers = fusion.hidden[modality]
    x = layers[1].weight @ norm(tokens.mean(dim=0), layers[0]) + layers[1].bias
    x = x * (1 + torch.erf(x / 2**0.5)) / 2
    mine = head.heads[modality]
    return mine.linear.weight @ norm(x, mine.norm) + mine.linear.bias


def combined(rule: str, logits: dict[str, Tensor], head: LateFusionHead) -> Tensor:
    """Logits up to a constant that a softmax ignores; exact for mean_logits, mean_probabilities and learned."""
    parts = list(logits.values())
    if rule == "mean_logits":
        return sum(parts) / len(parts)
    probabilities = [part.exp() / part.exp().sum() for part in parts]
    if rule == "mean_probabilities":
        return (sum(probabilities) / len(parts)).log()
    if rule == "product":
        return torch.stack(probabilities).log().sum(dim=0)
    assert head.weights is not None
    shares = [head.weights[ORDER.index(modality)].exp() for modality in logits]
    return sum(share / sum(shares) * part for share, part in zip(shares, parts, strict=True))


@pytest.mark.parametrize("rule", COMBINATIONS)
def test_values_and_gradients_are_those_of_the_formula(rule: str) -> None:
    fusion, head = make(rule)
    features = make_features()
    out = head(fusion(features))
    weight = torch.randn_like(out)
    assert torch.equal(out[3], torch.zeros(CLASSES, dtype=torch.float64))
    total = out.new_zeros(())
    for row in range(3):
        available = {m: features[m].tokens[row][features[m].mask[row]] for m in ORDER if features[m].mask[row].any()}
        expected = combined(rule, {m: decision(fusion, head, m, t) for m, t in available.items()}, head)
        torch.testing.assert_close(out[row], expected, rtol=0, atol=1e-12)
        total = total + (expected * weight[row]).sum()
    wanted = {m: f.tokens for m, f in features.items()} | dict(fusion.named_parameters())
    wanted |= {f"head.{n}": p for n, p in head.named_parameters()}
    mine = torch.autograd.grad((out * weight).sum(), list(wanted.values()))
    reference = torch.autograd.grad(total, list(wanted.values()))
    for name, one, other in zip(wanted, mine, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


def test_one_head_over_the_mean() -> None:
    head = make_head(4, 2, dropout=0.0, decides=None).double()
    assert isinstance(head, PooledHead)
    tokens = torch.randn(1, 3, 4, dtype=torch.float64)
    out = head(Features(tokens, torch.tensor([[True, False, True]])))
    expected = head.linear(norm((tokens[0, 0] + tokens[0, 2]) / 2, head.norm))
    torch.testing.assert_close(out[0], expected, rtol=0, atol=1e-12)


def test_another_combination_is_refused() -> None:
    with pytest.raises(ValueError, match=r"combine = mean; set it to mean_logits, mean_prob.*, learned or"):
        Late(dims=DIMS, dim=6, dropout=0.0, combine="mean")
