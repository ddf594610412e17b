"""Concat against its formula, one sample at a time."""

import math

import pytest
import torch
from torch import Tensor, nn

from mmtrain.fusion.concat import Concat
from mmtrain.types import Features

DIMS = {"text": 3, "image": 4}
MASKS = {
    "text": torch.tensor([[True, True], [True, False], [False, False], [False, False]]),
    "image": torch.tensor([[True], [False], [True], [False]]),
}


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias


def plain(fusion: Concat, tokens: dict[str, Tensor], row: int) -> Tensor:
    """The image precedes the text: sorted order."""
    parts = []
    for modality in ("image", "text"):
        valid = tokens[modality][row][MASKS[modality][row]]
        if len(valid):
            parts.append(norm(valid.mean(dim=0), fusion.norms[modality]))
        elif fusion.absent is None:
            parts.append(torch.zeros(DIMS[modality], dtype=torch.float64))
        else:
            parts.append(fusion.absent[modality])
    hidden = fusion.mlp.fc1.weight @ torch.cat(parts) + fusion.mlp.fc1.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return fusion.mlp.fc2.weight @ hidden + fusion.mlp.fc2.bias


@pytest.mark.parametrize("missing", ["identity", "learned"])
def test_values_and_gradients_are_those_of_the_formula(missing: str) -> None:
    fusion = Concat(dims=DIMS, dim=5, hidden_dim=6, dropout=0.0, missing=missing).double()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.5)
    tokens = {
        m: torch.randn(*mask.shape, DIMS[m], dtype=torch.float64, requires_grad=True) for m, mask in MASKS.items()
    }
    out, mask = fusion({m: Features(tokens[m], MASKS[m]) for m in DIMS})
    assert out.shape == (4, 1, 5)
    assert mask.squeeze(1).tolist() == [True, True, True, False]
    expected = torch.stack([*(plain(fusion, tokens, row) for row in range(3)), torch.zeros(5, dtype=torch.float64)])
    torch.testing.assert_close(out[:, 0], expected, rtol=0, atol=1e-12)
    wanted = {**tokens, **dict(fusion.named_parameters())}
    weight = torch.randn_like(expected)
    mine = torch.autograd.grad((out[:, 0] * weight).sum(), list(wanted.values()))
    reference = torch.autograd.grad((expected * weight).sum(), list(wanted.values()))
    for name, one, other in zip(wanted, mine, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


def test_what_is_learned_has_the_name_that_checkpoints_know() -> None:
    names = {
        missing: set(Concat(dims=DIMS, dim=5, hidden_dim=6, dropout=0.0, missing=missing).state_dict())
        for missing in ("identity", "learned")
    }
    assert names["learned"] - names["identity"] == {"absent.image", "absent.text"}


def test_missing_has_two_names() -> None:
    with pytest.raises(ValueError, match="missing = zero; set it to identity or learned"):
        Concat(dims=DIMS, dim=5, hidden_dim=6, dropout=0.0, missing="zero")
