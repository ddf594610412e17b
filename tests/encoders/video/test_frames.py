"""Videos frame by frame: the image encoder gets valid frames only, and the module over time matches its formula."""

import math

import pytest
import torch
from torch import Tensor, nn

from mmtrain.encoders.image.resnet import ResNet
from mmtrain.encoders.image.vit import ViT
from mmtrain.encoders.video.frames import Frames
from mmtrain.types import Features

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
SHAPE = {"num_frames": 5, "grid": 1, "dim": 6, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "dropout": 0.0}


def make_encoder(temporal: str, image: nn.Module | None = None, **options: float) -> Frames:
    vit = ViT(
        image_size=8,
        patch_size=4,
        dim=4,
        depth=1,
        num_heads=2,
        mlp_ratio=2.0,
        dropout=0.0,
        drop_path=0.0,
        layer_scale=None,
        color_features=0,
        pretrained=None,
    )
    encoder = Frames(image=image or vit, temporal=temporal, **{**SHAPE, **options}).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder


def films() -> Tensor:
    return torch.randn(4, 4, 3, 8, 8, dtype=torch.float64)


def one_token_a_frame(encoder: Frames, film: Tensor) -> Tensor:
    """Return (F, dim) for one video (F, 3, 8, 8), frame by frame."""
    return torch.stack(
        [
            encoder.proj(encoder.image(picture.unsqueeze(0)).tokens[0].mean(dim=0)) + encoder.pos_embed[0, place]
            for place, picture in enumerate(film)
        ]
    )


@pytest.mark.parametrize("temporal", ["mean", "gru", "transformer"])
def test_values_are_those_of_each_film_by_itself(temporal: str) -> None:
    encoder, values = make_encoder(temporal), films()
    tokens, mask = encoder(values, MASK)
    assert torch.equal(mask, MASK.any(dim=1, keepdim=True) if temporal == "mean" else MASK)
    for row, length in enumerate([4, 2, 1]):
        x = one_token_a_frame(encoder, values[row, :length])
        if temporal == "mean":
            expected = x.mean(dim=0, keepdim=True)
        elif temporal == "gru":
            gru = nn.GRU(6, 3, 2, bidirectional=True).double()
            gru.load_state_dict(encoder.temporal.rnn.state_dict())
            expected, _ = gru(x)
        else:
            expected = x.unsqueeze(0)
            for block in encoder.temporal.blocks:  # compared with torch's in tests/layers/test_block.py
                expected = block(expected)
            expected = encoder.temporal.norm(expected)[0]
        torch.testing.assert_close(tokens[row, mask[row]], expected, rtol=0, atol=1e-11)


def test_a_batch_norm_sees_no_padding() -> None:
    """A frame of noise under a False mask does not count either."""
    encoder, values = make_encoder("mean", ResNet(name="resnet18", small_input=True, pretrained=None)), films()
    encoder(torch.where(MASK[:, :, None, None, None], values, math.nan), MASK)
    alone = ResNet(name="resnet18", small_input=True, pretrained=None).double()
    alone.load_state_dict(encoder.image.state_dict())
    alone.net.bn1.reset_running_stats()
    alone(values[MASK])
    torch.testing.assert_close(encoder.image.net.bn1.running_mean, alone.net.bn1.running_mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(encoder.image.net.bn1.running_var, alone.net.bn1.running_var, rtol=0, atol=1e-12)


def test_frames_that_lie_apart_keep_their_places() -> None:
    encoder, values = make_encoder("transformer"), films()
    mask = torch.tensor([[0, 1, 0, 1]] * 4).bool()
    tokens, valid = encoder(values, mask)
    x = one_token_a_frame(encoder, values[0])[[1, 3]].unsqueeze(0)
    for block in encoder.temporal.blocks:
        x = block(x)
    assert torch.equal(valid, mask)
    torch.testing.assert_close(tokens[0, mask[0]], encoder.temporal.norm(x)[0], rtol=0, atol=1e-11)


class Map(nn.Module):
    """Maps images (N, 3, 8, 8) to 4 x 4 tokens, row by row: the colours of every other pixel."""

    dim = 3

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        tokens = values[:, :, ::2, ::2].flatten(2).transpose(1, 2)
        return Features(tokens, tokens.new_ones(tokens.shape[:2]).bool())


@pytest.mark.parametrize("grid", [2, 4])
def test_cells_of_a_grid_stand_beside_the_whole(grid: int) -> None:
    encoder, values = make_encoder("mean", Map(), grid=grid), films()
    side = 4 // grid
    pixels = values[:2, 0, :, ::2, ::2]
    corners = [(y, x) for y in range(0, 4, side) for x in range(0, 4, side)]
    cells = [pixels[..., y : y + side, x : x + side].mean(dim=(2, 3)) for y, x in corners]
    first = torch.tensor([[1, 0, 0, 0]] * 2).bool()
    tokens = encoder(values[:2], first).tokens[:, 0]
    means = torch.cat([pixels.mean(dim=(2, 3)), *cells], dim=1)
    torch.testing.assert_close(tokens, encoder.proj(means) + encoder.pos_embed[0, 0], rtol=0, atol=1e-11)


class Told(nn.Module):
    """An image encoder with two listed layers."""

    dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.top = nn.Conv2d(3, 4, 4), nn.Linear(4, 4), nn.LayerNorm(4)

    def layers(self) -> list[tuple[nn.Module, ...]]:
        return [(self.stem,), (self.block,)]


@pytest.mark.parametrize(("temporal", "over_time"), [("mean", 0), ("gru", 2), ("transformer", 2)])
def test_layers_are_those_of_the_image_encoder_and_of_time(temporal: str, over_time: int) -> None:
    """An encoder that lists no layers, such as a single convolution, is one layer."""
    told, silent = Told(), nn.Conv2d(3, 4, 4)
    silent.dim = 4
    for image, count in ((told, 2), (silent, 1)):
        encoder = make_encoder(temporal, image)
        layers = encoder.layers()
        assert len(layers) == count + over_time
        parts = [part for layer in layers for part in layer]
        parameters = [id(p) for part in parts for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
        assert len(parameters) == len(set(parameters))
        top = {n.rpartition(".")[0] for n, p in encoder.named_parameters() if id(p) not in parameters}
        expected = {"mean": {"", "proj"}, "gru": set(), "transformer": {"temporal.norm"}}[temporal]
        assert top == expected | ({"image.top"} if image is told else set())


def test_what_cannot_be_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="temporal = max; set it to mean, gru or transformer"):
        make_encoder("max")
    with pytest.raises(ValueError, match="grid = 0 is below 1"):
        make_encoder("mean", grid=0)
    with pytest.raises(ValueError, match="grid = 2, but a frame is 5 tokens, not a square map; set it to 1, or choose"):
        make_encoder("mean", grid=2)(films(), MASK)  # a ViT has a class token
    with pytest.raises(
        ValueError, match="grid = 3, but a frame is 16 tokens, a map of 4 x 4; set it to one of 1, 2, 4"
    ):
        make_encoder("mean", Map(), grid=3)(films(), MASK)
    with pytest.raises(ValueError, match="dim = 6 is not divisible by num_heads = 4"):
        make_encoder("transformer", num_heads=4)
    with pytest.raises(ValueError, match="dim = 5 cannot be halved"):
        make_encoder("gru", dim=5)
    message = "a video has 4 frames, but num_frames = 3; use 3 of them, or set num_frames to 4"
    with pytest.raises(ValueError, match=message):
        make_encoder("mean", num_frames=3)(films(), MASK)
