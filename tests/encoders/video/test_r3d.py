"""The 3D ResNets against torchvision's own forward on each video alone."""

import math
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models._api import WeightsEnum

from mmtrain.encoders.video.r3d import R3D
from tests.batches import assert_same_bits, gradients

LENGTHS = [9, 4, 9, 0]
MASK = torch.arange(9) < torch.tensor(LENGTHS)[:, None]


def films() -> Tensor:
    return torch.randn(4, 9, 3, 24, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def make_encoder(name: str = "r3d_18") -> R3D:
    torch.manual_seed(0)
    return R3D(name=name, pretrained=None).double()


@pytest.mark.parametrize(("name", "tokens"), [("r3d_18", [2, 1, 2]), ("mc3_18", [9, 4, 9]), ("r2plus1d_18", [2, 1, 2])])
def test_tokens_are_those_of_torchvision_on_each_film_by_itself(name: str, tokens: list[int]) -> None:
    """Torchvision's classifier reads the mean of the map; without it, the output is the mean of our tokens."""
    ours = make_encoder(name).eval()
    theirs = torchvision.models.get_model(name, weights=None)
    theirs.fc = torch.nn.Identity()
    theirs.double().eval().load_state_dict(ours.net.state_dict())
    maps: list[Tensor] = []
    theirs.layer4.register_forward_hook(lambda module, inputs, out: maps.append(out))
    values = films()
    out, mask = ours(values, MASK)
    assert ours.dim == 512 and mask.sum(dim=1).tolist() == [*tokens, 0] and not out[~mask].any()
    total = torch.zeros((), dtype=torch.float64)
    for row, length in enumerate(LENGTHS[:3]):
        mean = theirs(values[row : row + 1, :length].transpose(1, 2))[0]
        torch.testing.assert_close(out[row, mask[row]].mean(dim=0), mean, rtol=0, atol=1e-11)
        torch.testing.assert_close(out[row, 0], maps[-1][0, :, 0].mean(dim=(1, 2)), rtol=0, atol=1e-11)
        total = total + (row + 1) * mean.square().sum()
    mine = sum((row + 1) * out[row, mask[row]].mean(dim=0).square().sum() for row in range(3))
    mine.backward()
    total.backward()
    expected = gradients(theirs)
    for key, gradient in gradients(ours.net).items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("training", [False, True])
def test_what_stands_under_a_false_mask_changes_no_bit(training: bool) -> None:
    def run(garbage: float) -> dict[str, Tensor]:
        encoder = make_encoder().train(training)
        leaf = films().masked_fill(~MASK[:, :, None, None, None], garbage).requires_grad_()
        tokens, mask = encoder(leaf, MASK)
        tokens.square().sum().backward()
        return {
            "tokens": tokens.detach(),
            "mask": mask,
            "input": leaf.grad,
            **gradients(encoder),
            **dict(encoder.named_buffers()),
        }

    clean = run(0.0)
    assert all(value.isfinite().all() for value in clean.values()) and not clean["input"][~MASK].any()
    assert_same_bits(clean, run(math.nan))


def test_a_batch_norm_takes_the_films_of_one_length_together() -> None:
    encoder, alone = make_encoder(), make_encoder()
    tokens, mask = encoder(films(), MASK)
    expected = alone(films()[[0, 2]], None)
    torch.testing.assert_close(tokens[[0, 2]], expected.tokens, rtol=0, atol=1e-10)
    assert mask[[0, 2]].all() and expected.mask.all()


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_and_a_batch_of_one(autocast: bool) -> None:
    encoder = make_encoder().eval()
    exact = encoder(films()[:1], None).tokens
    dtype = torch.float32 if autocast else torch.bfloat16
    encoder.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tokens = encoder(films()[:1].to(dtype), None).tokens
    torch.testing.assert_close(tokens.double(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


def test_layers_are_stem_and_blocks() -> None:
    encoder = make_encoder()
    layers = encoder.layers()
    assert len(layers) == 1 + 8
    parameters = [id(p) for layer in layers for part in layer for p in part.parameters()]
    assert sorted(parameters) == sorted(id(p) for p in encoder.parameters())


def test_weights_of_a_file_are_taken_without_their_classifier(tmp_path: Path) -> None:
    theirs = torchvision.models.video.r3d_18(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "r3d.pth")
    ours = R3D(name="r3d_18", pretrained=str(tmp_path / "r3d.pth"))
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.net.state_dict().items())
    with pytest.raises(ValueError, match=r"r3d.pth does not fit: .* is missing in the file"):
        R3D(name="r2plus1d_18", pretrained=str(tmp_path / "r3d.pth"))


def test_the_pixels_are_those_of_kinetics() -> None:
    expected: dict[str, Any] = {"mean": [0.43216, 0.394666, 0.37645], "std": [0.22803, 0.22145, 0.216989]}
    expected |= {"size": 112, "resize_size": [128, 171], "interpolation": "bilinear", "crop_offset": "round"}
    assert R3D.preprocessing(name="r3d_18", pretrained=True) == expected
    assert R3D.preprocessing(name="mc3_18", pretrained="somewhere.pth") == expected
    assert R3D.preprocessing(name="r3d_18", pretrained=None) == {}


def test_what_cannot_be_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="name = r3d_50; set it to r3d_18, mc3_18 or r2plus1d_18"):
        R3D(name="r3d_50", pretrained=None)
    with pytest.raises(ValueError, match=r"pretrained = nothing.pth is not a file"):
        R3D(name="r3d_18", pretrained="nothing.pth")

    def unreachable(self: WeightsEnum, **options: Any) -> dict[str, Tensor]:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", unreachable)
    with pytest.raises(ValueError, match=r"loaded from .*r3d_18-b3b3357e.pth: (.|\n)*set pretrained to its path"):
        R3D(name="r3d_18", pretrained=True)
