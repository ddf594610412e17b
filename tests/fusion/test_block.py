"""BlockFusion against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmtrain.fusion.block import BlockFusion
from mmtrain.types import Features

DIMS = {"text": 3, "audio": 5, "image": 4}
LENGTHS = {"text": 4, "audio": 2, "image": 1}


def make(dims: dict[str, int], missing: str, num_chunks: int) -> BlockFusion:
    fusion = BlockFusion(
        dims=dims, dim=6, joint_dim=6, num_chunks=num_chunks, rank=3, dropout=0.0, missing=missing
    ).double()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.4)
    return fusion


def vector(fusion: BlockFusion, modality: str, tokens: Tensor) -> Tensor:
    norm = fusion.vectors.norms[modality]
    return F.layer_norm(tokens.sum(dim=0) / len(tokens), norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def absent(fusion: BlockFusion, modality: str, like: Tensor) -> Tensor:
    learned = fusion.absent.learned
    return torch.ones_like(like) if learned is None else learned[modality]


def rooted(z: Tensor) -> Tensor:
    """Signed square root and l2 norm as in mmtrain.layers.power_norm, for a vector without zeros."""
    root = torch.stack([x / (abs(x) + 1e-6) ** 0.5 for x in z])
    return root / sum(x**2 for x in root) ** 0.5


def plain(fusion: BlockFusion, tokens: dict[str, Tensor]) -> Tensor:
    """Tokens are (T_m, D_m) by modality; T_m = 0 for a missing one."""
    num_chunks, rank, size = fusion.shape
    chunks = []
    for chunk in range(num_chunks):
        total = torch.zeros(size, dtype=torch.float64)
        for r in range(rank):
            product = torch.ones(size, dtype=torch.float64)
            part = slice((chunk * rank + r) * size, (chunk * rank + r + 1) * size)
            for modality, given in tokens.items():
                layer, core = fusion.projections[modality], fusion.core[modality].conv
                factor = absent(fusion, modality, core.bias)[part]
                if len(given):
                    projected = layer.weight @ vector(fusion, modality, given) + layer.bias
                    mine = projected[chunk * size : (chunk + 1) * size]
                    factor = core.weight[part, :, 0] @ mine + core.bias[part]
                product = product * factor
            total = total + product
        chunks.append(rooted(total))
    return fusion.out.weight @ torch.cat(chunks) + fusion.out.bias


@pytest.mark.parametrize("missing", ["neutral", "learned"])
@pytest.mark.parametrize("num_chunks", [1, 2, 3])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(
    modalities: tuple[str, ...], num_chunks: int, missing: str
) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, missing, num_chunks)
    masks = {m: torch.rand(6, LENGTHS[m]) < 0.7 for m in modalities}
    for modality, mask in masks.items():
        mask[0] = True
        mask[1] = modality != "text"
        mask[2] = modality != "image"
        mask[3] = False
        mask[4] = modality == "text"
    tokens = {m: torch.randn(6, LENGTHS[m], DIMS[m], dtype=torch.float64, requires_grad=True) for m in modalities}
    out, mask = fusion({m: Features(tokens[m], masks[m]) for m in modalities})
    assert out.shape == (6, 1, 6) and mask[:, 0].tolist() == [
        any(masks[m][row].any() for m in masks) for row in range(6)
    ]
    rows = [{m: tokens[m][row][masks[m][row]] for m in sorted(modalities)} for row in range(6)]
    expected = torch.stack([plain(fusion, row) if mask[i] else out.new_zeros(6) for i, row in enumerate(rows)])
    torch.testing.assert_close(out[:, 0], expected, rtol=0, atol=1e-11)
    wanted = {**tokens, **dict(fusion.named_parameters())}
    weight = torch.randn_like(expected)
    mine = torch.autograd.grad((out[:, 0] * weight).sum(), list(wanted.values()))
    reference = torch.autograd.grad((expected * weight).sum(), list(wanted.values()))
    for name, one, other in zip(wanted, mine, reference, strict=True):
        assert one.any(), name
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def test_missing_has_two_names() -> None:
    with pytest.raises(ValueError, match="missing = zero; set it to neutral or learned"):
        make(DIMS, "zero", 2)


@pytest.mark.parametrize(("num_chunks", "advice"), [(4, "2 or 3"), (6, "2 or 3"), (0, "1 or 2")])
def test_chunks_that_do_not_divide_or_have_one_number_are_refused(num_chunks: int, advice: str) -> None:
    said = (
        f"joint_dim = 6 cannot be divided into num_chunks = {num_chunks} equal chunks of two or more;"
        " set num_chunks to "
    )
    with pytest.raises(ValueError, match=f"{said}{advice}"):
        make(DIMS, "neutral", num_chunks)
