"""MCB against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor, nn

from mmtrain.fusion.mcb import MCB
from mmtrain.types import Features
from tests.plain_attention import make_random, norm
from tests.plain_vectors import DIMS, Vectors, assert_fuses_vectors, power_normed


def make(dims: dict[str, int], missing: str, sketch_dim: int) -> MCB:
    fusion = MCB(dims=dims, dim=6, sketch_dim=sketch_dim, dropout=0.0, missing=missing)
    make_random(fusion)
    return fusion


def convolved(one: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    """Circular convolution by definition."""
    size = len(one)
    return [sum(one[j] * other[(i - j) % size] for j in range(size)) for i in range(size)]


def plain(fusion: MCB, vectors: Vectors) -> Tensor:
    """`vectors` has None for a missing modality."""
    size = fusion.sketch_dim
    joint = [torch.tensor(float(i == 0), dtype=torch.float64) for i in range(size)]
    for modality, x in vectors.items():
        sketch = [torch.zeros((), dtype=torch.float64) for _ in range(size)]
        hashes = fusion.sketches[modality]
        if x is not None:
            for place, sign, number in zip(hashes.places, hashes.signs, x, strict=True):
                sketch[place] = sketch[place] + sign * number
        else:
            sketch[0] = sketch[0] + 1.0
            if fusion.absent.learned is not None:
                sketch = [x + more for x, more in zip(sketch, fusion.absent.learned[modality], strict=True)]
        joint = convolved(joint, sketch)
    return fusion.out.weight @ power_normed(torch.stack(joint)) + fusion.out.bias


@pytest.mark.parametrize("missing", ["identity", "learned"])
@pytest.mark.parametrize("sketch_dim", [8, 7])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(
    modalities: tuple[str, ...], sketch_dim: int, missing: str
) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, missing, sketch_dim)
    assert_fuses_vectors(fusion, lambda vectors: plain(fusion, vectors))


def test_it_is_the_count_sketch_of_the_outer_product() -> None:
    """For two modalities, x_i y_j is at position (h(i) + h(j)) mod size, with sign s(i) s(j)."""
    fusion, seen = make({"image": 4, "text": 3}, "identity", 8), []
    fusion.out.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    present = torch.ones(1, 1, dtype=torch.bool)
    tokens = {m: torch.randn(1, 1, width, dtype=torch.float64) for m, width in (("image", 4), ("text", 3))}
    fusion({m: Features(x, present) for m, x in tokens.items()})
    image, text = (fusion.sketches[m] for m in ("image", "text"))
    x, y = (norm(tokens[m][0, 0], fusion.vectors.norms[m]) for m in ("image", "text"))
    expected = torch.zeros(8, dtype=torch.float64)
    for i in range(4):
        for j in range(3):
            expected[(image.places[i] + text.places[j]) % 8] += image.signs[i] * text.signs[j] * x[i] * y[j]
    torch.testing.assert_close(seen[0], power_normed(expected), rtol=0, atol=1e-11)


def test_hashes_are_fixed_saved_and_differ_by_modality() -> None:
    dims = {"image": 40, "text": 40}
    state = make(dims, "identity", 64).state_dict()
    torch.manual_seed(1)
    other = make(dims, "identity", 64).state_dict()
    for kind in ("places", "signs"):
        assert torch.equal(state[f"sketches.image.{kind}"], other[f"sketches.image.{kind}"])
        assert not torch.equal(state[f"sketches.image.{kind}"], state[f"sketches.text.{kind}"])
    assert set(state["sketches.text.signs"].tolist()) == {-1.0, 1.0}
    assert not [name for name, _ in make(dims, "identity", 64).named_parameters() if "sketches" in name]


@pytest.mark.parametrize("autocast", [False, True])
def test_spectra_are_in_32_bits_whatever_the_precision(autocast: bool) -> None:
    fusion, seen = make(DIMS, "learned", 8).to(torch.float32 if autocast else torch.bfloat16), []
    for sketch in fusion.sketches.values():
        sketch.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    dtype, there = fusion.out.weight.dtype, torch.ones(1, 1, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out, _ = fusion({m: Features(torch.randn(1, 1, width, dtype=dtype), there) for m, width in DIMS.items()})
    assert seen == [torch.float32] * 3 and out.dtype is torch.bfloat16


def test_a_vector_of_zeros_has_a_bounded_gradient() -> None:
    """Tokens that are equal in every channel become zeros after a norm without shift, and so does the product."""
    fusion = make({"image": 4, "text": 3}, "identity", 8)
    nn.init.zeros_(fusion.vectors.norms["image"].bias)
    there, image = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1, 4, dtype=torch.float64, requires_grad=True)
    text = torch.randn(1, 1, 3, dtype=torch.float64)
    out, _ = fusion({"image": Features(image, there), "text": Features(text, there)})
    torch.testing.assert_close(out[0, 0], fusion.out.bias, rtol=0, atol=0)
    out.sum().backward()
    assert image.grad.isfinite().all()
    assert fusion.vectors.norms["image"].bias.grad.norm() < 1e5
