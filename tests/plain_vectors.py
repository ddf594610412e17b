"""Fusions without masks: one sample alone, from its valid tokens alone, written out."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from mmtrain.types import Features
from tests.plain_attention import norm

DIMS = {"text": 3, "audio": 5, "image": 4}
LENGTHS = {"text": 4, "audio": 1, "image": 3}

# The normed mean (D_m,) of each modality in sorted order; None for a missing one
Vectors = dict[str, Tensor | None]

# One sample's valid tokens (T_m, D_m) by modality that it has, in sorted order -> fused tokens (T, dim)
Plain = Callable[[dict[str, Tensor]], Tensor]


def assert_fuses(fusion: nn.Module, plain: Plain, modalities: Sequence[str]) -> None:
    """Compare tokens and the gradients of every parameter and input with those of the plain formula."""
    masks = {m: torch.rand(7, LENGTHS[m]) < 0.7 for m in modalities}
    for modality, mask in masks.items():
        mask[0] = True
        mask[1] = False
        mask[2] = modality == "text"
        mask[3] = modality != "text"
        mask[4] = modality != "image"
    tokens = {m: torch.randn(*masks[m].shape, DIMS[m], dtype=torch.float64, requires_grad=True) for m in modalities}
    out, mask = fusion({m: Features(tokens[m], masks[m]) for m in modalities})
    weight, total = torch.randn_like(out), out.new_zeros(())
    for row in range(7):
        available = {m: tokens[m][row][masks[m][row]] for m in sorted(modalities) if masks[m][row].any()}
        expected = plain(available) if available else out.new_zeros(0, fusion.dim)
        torch.testing.assert_close(out[row][mask[row]], expected, rtol=0, atol=1e-11)
        assert not out[row][~mask[row]].any()
        total = total + (expected * weight[row][mask[row]]).sum()
    leaves = {**tokens, **dict(fusion.named_parameters())}
    mine = torch.autograd.grad((out * weight).sum(), list(leaves.values()))
    reference = torch.autograd.grad(total, list(leaves.values()))
    for name, one, other in zip(leaves, mine, reference, strict=True):
        assert one.any(), name
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def vectors(tokens: Mapping[str, Tensor], norms: nn.ModuleDict) -> dict[str, Tensor]:
    """The normed mean (D_m,) of each modality that is there."""
    return {m: norm(x.sum(dim=0) / len(x), norms[m]) for m, x in tokens.items()}


def assert_fuses_vectors(fusion: nn.Module, formula: Callable[[Vectors], Tensor]) -> None:
    """`assert_fuses` for a fusion of one vector (dim,) from one vector per modality."""
    modalities = sorted(fusion.vectors.norms)

    def plain(tokens: dict[str, Tensor]) -> Tensor:
        present = vectors(tokens, fusion.vectors.norms)
        return formula({m: present.get(m) for m in modalities}).unsqueeze(0)

    assert_fuses(fusion, plain, modalities)


def factor_of_missing(fusion: nn.Module, modality: str, like: Tensor) -> Tensor:
    """What a product has for a missing modality: learned numbers, or ones."""
    learned = fusion.absent.learned
    return torch.ones_like(like) if learned is None else learned[modality]


def power_normed(z: Tensor) -> Tensor:
    """Signed square root and l2 norm as in mmtrain.layers.power_norm, for a vector without zeros."""
    root = torch.stack([x / (abs(x) + 1e-6) ** 0.5 for x in z])
    return root / sum(x**2 for x in root) ** 0.5
