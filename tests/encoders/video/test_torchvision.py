"""Video models of torchvision against their own forward on videos whose last frame is repeated."""

import math
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from mmtrain.encoders.video.torchvision import TorchvisionVideo
from tests.batches import assert_same_bits, gradients

MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]]).bool()
STILL = [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 2, 2, 2, 2, 2]]
# number of tokens, number of blocks, width
MODELS = {"s3d": (1, 11, 1024), "swin3d_t": (4, 12, 768)}
every_model = pytest.mark.parametrize("name", MODELS)


def films() -> Tensor:
    return torch.randn(3, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def make_encoder(name: str) -> TorchvisionVideo:
    torch.manual_seed(0)
    return TorchvisionVideo(name=name, num_frames=8, image_size=32, pretrained=None).double().eval()


@every_model
def test_tokens_are_those_of_torchvision_on_each_film_by_itself(name: str) -> None:
    ours = make_encoder(name)
    theirs = torchvision.models.get_model(name, weights=None)
    setattr(theirs, {"s3d": "classifier", "swin3d_t": "head"}[name], torch.nn.Identity())
    theirs.double().eval().load_state_dict(ours.net.state_dict())
    if name == "s3d":
        theirs.avgpool = torch.nn.AdaptiveAvgPool3d(1)  # the original pooling needs 224 pixels
    last: list[Tensor] = []
    (theirs.features if name == "s3d" else theirs.norm).register_forward_hook(lambda m, i, out: last.append(out))
    values = films()
    tokens, mask = ours(values, MASK)
    count, _, dim = MODELS[name]
    assert tokens.shape == (3, count, dim) and ours.dim == dim
    assert torch.equal(mask, MASK.any(dim=1, keepdim=True).expand(-1, count)) and not tokens[2].any()
    weight = torch.randn_like(tokens)
    (tokens * weight).sum().backward()
    for row, places in enumerate(STILL):
        theirs(values[row, places].transpose(0, 1).unsqueeze(0))
        result = last[-1][0]
        if name == "s3d":
            expected = torch.stack([result[:, t].mean(dim=(1, 2)) for t in range(count)])
        else:
            expected = torch.stack([result[t].mean(dim=(0, 1)) for t in range(count)])
        torch.testing.assert_close(tokens[row], expected, rtol=0, atol=1e-10)
        (expected * weight[row]).sum().backward()
    expected_gradients = gradients(theirs)
    for key, gradient in gradients(ours.net).items():
        torch.testing.assert_close(gradient, expected_gradients[key], rtol=1e-7, atol=1e-8)


@every_model
def test_what_stands_under_a_false_mask_changes_no_bit(name: str) -> None:
    encoder = make_encoder(name).float()

    def run(garbage: float) -> dict[str, Tensor]:
        encoder.zero_grad()
        leaf = films().float().masked_fill(~MASK[:, :, None, None, None], garbage).requires_grad_()
        tokens, mask = encoder(leaf, MASK)
        tokens.square().sum().backward()
        return {"tokens": tokens.detach(), "mask": mask, "input": leaf.grad, **gradients(encoder)}

    clean = run(0.0)
    assert all(value.isfinite().all() for value in clean.values()) and not clean["input"][~MASK].any()
    assert_same_bits(clean, run(math.nan))


@every_model
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_and_a_batch_of_one(name: str, autocast: bool) -> None:
    encoder = make_encoder(name)
    exact = encoder(films()[:1], None).tokens
    dtype = torch.float32 if autocast else torch.bfloat16
    encoder.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tokens, mask = encoder(films()[:1].to(dtype), None)
    assert mask.all()
    torch.testing.assert_close(tokens.double(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


@every_model
def test_layers_are_stem_and_blocks(name: str) -> None:
    encoder = make_encoder(name)
    layers = encoder.layers()
    assert len(layers) == 1 + MODELS[name][1]
    parameters = [id(p) for layer in layers for part in layer for p in part.parameters()]
    assert len(parameters) == len(set(parameters))
    top = [n for n, p in encoder.named_parameters() if id(p) not in parameters]
    assert top == ([] if name == "s3d" else ["net.norm.weight", "net.norm.bias"])


def test_weights_of_a_file_are_taken_without_their_classifier(tmp_path: Path) -> None:
    theirs = torchvision.models.video.s3d(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "s3d.pth")
    ours = TorchvisionVideo(name="s3d", num_frames=8, image_size=32, pretrained=str(tmp_path / "s3d.pth"))
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.net.state_dict().items())


def test_the_pixels_are_those_of_kinetics() -> None:
    assert TorchvisionVideo.preprocessing(name="s3d", pretrained=True)["mean"] == [0.43216, 0.394666, 0.37645]
    assert TorchvisionVideo.preprocessing(name="swin3d_t", pretrained="a.pth")["std"] == [0.229, 0.224, 0.225]
    assert TorchvisionVideo.preprocessing(name="s3d", pretrained=None) == {}


def test_what_cannot_be_is_refused_with_advice() -> None:
    def make(name: str, num_frames: int, image_size: int) -> TorchvisionVideo:
        return TorchvisionVideo(name=name, num_frames=num_frames, image_size=image_size, pretrained=None)

    with pytest.raises(ValueError, match=r"name = r3d_18; set it to s3d, swin3d_t, .* or swin3d_b"):
        make("r3d_18", 8, 32)
    with pytest.raises(
        ValueError, match=r"num_frames = 4 is too small .* set data.inputs.video.num_frames to at least 5"
    ):
        make("s3d", 4, 32)
    with pytest.raises(ValueError, match=r"size = 16 is too small .* set data.inputs.video.size to at least 17"):
        make("s3d", 8, 16)
    assert make("s3d", 5, 17).eval()(torch.randn(1, 5, 3, 17, 17), None).tokens.shape == (1, 1, 1024)
    with pytest.raises(ValueError, match="a video has 9 frames, but num_frames = 8"):
        make("s3d", 8, 32)(torch.randn(1, 9, 3, 32, 32), None)
