"""Invariants of all encoders: shapes, masks, independent rows, parameters that are saved and trained."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_class
from torch import Tensor, nn

from mmtrain.config.compose import config_dir
from mmtrain.encoders.audio.cnn import AudioCNN
from mmtrain.encoders.audio.spectrogram_transformer import SpectrogramTransformer
from mmtrain.encoders.image.cnn import ImageCNN
from mmtrain.encoders.image.huggingface import HuggingFaceImage
from mmtrain.encoders.image.resnet import ResNet
from mmtrain.encoders.image.timm import Timm
from mmtrain.encoders.image.torchvision import TorchVision
from mmtrain.encoders.image.vit import ViT
from mmtrain.encoders.sequence.gru import SequenceGRU
from mmtrain.encoders.sequence.transformer import SequenceTransformer
from mmtrain.encoders.text.gru import TextGRU
from mmtrain.encoders.text.transformer import TextTransformer
from mmtrain.encoders.vector.mlp import VectorMLP
from mmtrain.encoders.video.frames import Frames
from mmtrain.layers.finetuning import Layered, Tuning, tune
from mmtrain.model import encode_present
from mmtrain.types import Batch, Features, Padded
from tests.batches import assert_same_bits, gradients
from tests.encoders.small_models import SMALL

LENGTHS = {"text": [5, 3, 1, 0], "audio": [400, 130, 9, 0], "video": [4, 2, 1, 0], "sequence": [6, 4, 1, 0]}
SPECTROGRAM = {"sample_rate": 1000, "num_mels": 8, "window_seconds": 0.032, "hop_seconds": 0.016, "mel_scale": "htk"}
BLOCKS = {"depth": 2, "num_heads": 2, "mlp_ratio": 2.0}


def vit(dropout: float) -> ViT:
    return ViT(
        image_size=8,
        patch_size=4,
        dim=6,
        **BLOCKS,
        dropout=dropout,
        drop_path=0.0,
        layer_scale=0.3,
        color_features=4,
        pretrained=None,
    )


def huggingface(dropout: float) -> HuggingFaceImage:
    heads = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    config = {"model_type": "vit", "patch_size": 4, **heads, "hidden_dropout_prob": dropout}
    return HuggingFaceImage(pretrained=None, config=config, image_size=8)


def frames(temporal: str) -> Callable[[float], Frames]:
    return lambda dropout: Frames(
        image=vit(dropout), num_frames=6, grid=1, dim=8, temporal=temporal, **BLOCKS, dropout=dropout
    )


def gru(bidirectional: bool) -> dict[str, int | bool]:
    return {"dim": 8, "depth": 2, "bidirectional": bidirectional}


DEEP = ("image/resnet", "image/torchvision", "image/timm")
# modality/name -> an encoder with dropout
MAKERS: dict[str, Callable[[float], nn.Module]] = {
    "image/vit": vit,
    "image/cnn": lambda dropout: ImageCNN(channels=[4, 6], num_groups=2, dropout=dropout),
    "image/resnet": lambda dropout: ResNet(name="resnet18", small_input=True, pretrained=None),
    "image/torchvision": lambda dropout: TorchVision(name="mobilenet_v3_small", pretrained=None, image_size=8),
    "image/timm": lambda dropout: Timm(name="test_vit", pretrained=None, image_size=32, drop_path=dropout),
    "image/huggingface": huggingface,
    "text/transformer": lambda dropout: TextTransformer(
        vocab_size=20, max_length=8, dim=8, **BLOCKS, dropout=dropout, layer_scale=0.3
    ),
    "text/gru": lambda dropout: TextGRU(vocab_size=20, **gru(False), dropout=dropout),
    "audio/spectrogram_transformer": lambda dropout: SpectrogramTransformer(
        max_seconds=0.6, patch_frames=3, patch_mels=4, dim=8, **BLOCKS, dropout=dropout, drop_path=0.0, **SPECTROGRAM
    ),
    "audio/cnn": lambda dropout: AudioCNN(channels=[4, 6], dim=8, dropout=dropout, **SPECTROGRAM),
    "video/frames (mean)": frames("mean"),
    "video/frames (gru)": frames("gru"),
    "video/frames (transformer)": frames("transformer"),
    "vector/mlp": lambda dropout: VectorMLP(in_dim=5, dim=8, num_tokens=3, hidden_dim=7, depth=2, dropout=dropout),
    "sequence/gru": lambda dropout: SequenceGRU(in_dim=5, **gru(True), dropout=dropout),
    "sequence/transformer": lambda dropout: SequenceTransformer(
        in_dim=5, max_length=9, dim=8, **BLOCKS, dropout=dropout
    ),
    **SMALL,
}
# encoders with inputs of another form; their own tests check them
OTHER_INPUTS = (
    *("dialogue/turns", "image/pictures", "video/r3d", "video/torchvision"),
    *("image/open_clip", "text/open_clip"),
)
# by knob, for encoders without a maker above; a knob that is not here has the value of its YAML file
SMALL_KNOBS: dict[str, Any] = {
    "in_dim": 5,
    "dim": 8,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "drop_path": 0.0,
    "pretrained": None,
    "image_size": 8,
    "patch_size": 4,
    "vocab_size": 20,
    "max_length": 8,
    "num_frames": 6,
    "max_seconds": 0.6,
    **SPECTROGRAM,
}


def of_file(path: Path) -> Callable[[float], nn.Module]:
    """Return a maker of the encoder of a YAML file."""
    node = yaml.safe_load(path.read_text(encoding="utf-8"))
    knobs = {name: SMALL_KNOBS.get(name, value) for name, value in node.items() if name not in ("_target_", "defaults")}
    encoder = get_class(node["_target_"])
    if "in_dim" in inspect.signature(encoder).parameters:
        knobs["in_dim"] = SMALL_KNOBS["in_dim"]
    return lambda dropout: encoder(**{**knobs, "dropout": dropout})


for file in sorted((config_dir() / "encoder").glob("*/*.yaml")):
    encoder_name = f"{file.parent.name}/{file.stem}"
    if encoder_name not in OTHER_INPUTS and not any(known.split(" ")[0] == encoder_name for known in MAKERS):
        MAKERS[encoder_name] = of_file(file)

every_encoder = pytest.mark.parametrize("name", MAKERS)
with_a_mask = pytest.mark.parametrize("name", [n for n in MAKERS if n.split("/")[0] in LENGTHS])
with_dropout = pytest.mark.parametrize("name", [n for n in MAKERS if n not in ("image/resnet", "image/torchvision")])


def make(name: str, dropout: float = 0.0, seed: int = 1) -> nn.Module:
    """Return a float64 encoder without zero weights."""
    torch.manual_seed(seed)
    encoder = MAKERS[name](dropout).double()
    for parameter in encoder.parameters():
        if name not in DEEP:  # random weights would overflow in evaluation
            nn.init.normal_(parameter, std=0.4)
    return encoder


def make_inputs(name: str) -> tuple[Tensor, Tensor | None]:
    """Return rows of different lengths; the last one is empty."""
    generator = torch.Generator().manual_seed(0)
    modality = name.split("/")[0]
    pixels = 32 if name == "image/timm" else 8  # its patches are 16 pixels wide
    shapes = {"image": (4, 3, pixels, pixels), "vector": (4, 5), "audio": (4, 400), "video": (4, 4, 3, 8, 8)}
    shape = shapes.get(modality, (4, 6, 5))
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    if modality == "text":
        values = torch.randint(1, 20, (4, 5), generator=generator)
    if modality not in LENGTHS:
        return values, None
    mask = torch.arange(values.shape[1]) < torch.tensor(LENGTHS[modality])[:, None]
    return _filled(values, mask, 0), mask


def _filled(values: Tensor, mask: Tensor, value: float) -> Tensor:
    return torch.where(mask.reshape(*mask.shape, *[1] * (values.ndim - 2)), values, value).to(values.dtype)


def run(encoder: nn.Module, values: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Return the output, the gradient of every parameter, and of the input if it is differentiable."""
    encoder.zero_grad()
    leaf = values.clone().requires_grad_(values.is_floating_point())
    out = encoder(leaf, mask).cleared()
    generator = torch.Generator().manual_seed(0)
    (out.tokens * torch.randn(out.tokens.shape, generator=generator, dtype=out.tokens.dtype)).sum().backward()
    results = {"tokens": out.tokens.detach(), "mask": out.mask, **gradients(encoder)}
    return results if leaf.grad is None else results | {"input": leaf.grad}


def valid_tokens(out: Features, row: int) -> Tensor:
    return out.tokens[row, out.mask[row]]


@every_encoder
def test_shapes_and_mask(name: str) -> None:
    encoder, (values, mask) = make(name), make_inputs(name)
    tokens, valid = encoder(values, mask)
    assert tokens.shape == (*valid.shape, encoder.dim) and valid.dtype is torch.bool
    present = torch.ones(4, dtype=torch.bool) if mask is None else mask.any(dim=1)
    assert torch.equal(valid.any(dim=1), present)


@every_encoder
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    """A single row has no padding."""
    encoder, (values, mask) = make(name, dropout=0.5).eval(), make_inputs(name)
    together = encoder(values, mask)
    for row in range(3):
        length = values.shape[1] if mask is None else int(mask[row].sum())
        part = None if mask is None else mask[row : row + 1, :length]
        alone = encoder(values[row : row + 1, :length], part)
        assert alone.mask.all()
        torch.testing.assert_close(alone.tokens[0], valid_tokens(together, row), rtol=0, atol=1e-10)


@with_a_mask
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_more_padding_changes_nothing(name: str, dtype: torch.dtype) -> None:
    encoder, (values, mask) = make(name).to(dtype), make_inputs(name)
    values = values.to(dtype) if values.is_floating_point() else values
    more = {"audio": 77, "video": 2}.get(name.split("/")[0], 3)
    longer = torch.cat([values, torch.ones_like(values[:, :1]).expand(-1, more, *values.shape[2:])], dim=1)
    short, long = encoder(values, mask), encoder(longer, nn.functional.pad(mask, (0, more)))
    for row in range(4):
        tolerance = 1e-10 if dtype is torch.float64 else 1e-6
        torch.testing.assert_close(valid_tokens(long, row), valid_tokens(short, row), rtol=0, atol=tolerance)


@with_a_mask
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_what_stands_under_a_false_mask_changes_no_bit(name: str, garbage: float) -> None:
    encoder, (values, mask) = make(name), make_inputs(name)
    dirty = _filled(values, mask, garbage if values.is_floating_point() else 10**9)
    clean = run(encoder, values, mask)
    assert all(value.isfinite().all() for value in clean.values())
    assert_same_bits(clean, run(encoder, dirty, mask))
    if "input" in clean:
        assert not clean["input"][~mask].any()


@every_encoder
def test_every_parameter_is_saved_and_matters(name: str) -> None:
    encoder, (values, mask) = make(name), make_inputs(name)
    result = run(encoder, values, mask)
    assert [n for n, _ in encoder.named_parameters() if not result[n].any()] == []
    copy = make(name, seed=2)
    copy.load_state_dict(encoder.state_dict())
    expected = encoder.eval()(values, mask).cleared()
    again = copy.eval()(values, mask).cleared()
    assert torch.equal(again.tokens, expected.tokens) and torch.equal(again.mask, expected.mask)


@every_encoder
@pytest.mark.parametrize("missing", [[3], [0, 1, 2, 3]])
def test_every_parameter_gets_a_gradient_whatever_the_batch_lacks(name: str, missing: list[int]) -> None:
    """Through the model, which excludes rows without the modality."""
    encoder, (values, mask) = make(name), make_inputs(name)
    present = torch.tensor([row not in missing for row in range(4)])
    batch = Batch([""] * 4, torch.arange(4), {"m": Padded(values, mask)}, {"m": present}, {}, {}, {}, torch.arange(4))
    out = encode_present(encoder, batch, "m")
    assert torch.equal(out.mask.any(dim=1), present) and not out.tokens[~out.mask].any()
    (out.tokens * torch.randn_like(out.tokens)).sum().backward()
    result = gradients(encoder)
    assert all(gradient.isfinite().all() for gradient in result.values())
    assert any(gradient.any() for gradient in result.values()) == (len(missing) == 1)


@with_a_mask
def test_without_a_mask_everything_is_valid(name: str) -> None:
    encoder, (values, mask) = make(name), make_inputs(name)
    one, other = encoder(values, None), encoder(values, torch.ones_like(mask))
    assert torch.equal(one.tokens, other.tokens) and other.mask.all() and torch.equal(one.mask, other.mask)


@every_encoder
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_runs(name: str, autocast: bool) -> None:
    encoder, (values, mask) = make(name).eval(), make_inputs(name)
    exact = encoder(values, mask).cleared().tokens
    dtype = torch.float32 if autocast else torch.bfloat16
    encoder.to(dtype)
    given = values.to(dtype) if values.is_floating_point() else values
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tokens = encoder(given, mask).cleared().tokens
    tokens.float().sum().backward()
    assert all(gradient.isfinite().all() for gradient in gradients(encoder).values())
    torch.testing.assert_close(tokens.double(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


@with_dropout
def test_dropout_is_for_training_only(name: str) -> None:
    encoder, (values, mask) = make(name, dropout=0.5), make_inputs(name)
    assert not torch.equal(encoder(values, mask).cleared().tokens, encoder(values, mask).cleared().tokens)
    encoder.eval()
    assert torch.equal(encoder(values, mask).cleared().tokens, encoder(values, mask).cleared().tokens)


@every_encoder
def test_layers_are_parts_of_the_encoder_and_share_nothing(name: str) -> None:
    encoder = make(name)
    assert isinstance(encoder, Layered)
    layers = encoder.layers()
    results = [
        id(p) for layer in layers for part in layer for p in ([part] if torch.is_tensor(part) else part.parameters())
    ]
    assert len(layers) > 1 and results and len(results) == len(set(results))
    assert set(results) <= {id(p) for p in encoder.parameters()}


@every_encoder
def test_checkpointing_gives_the_same_output_and_gradients(name: str) -> None:
    """Includes random draws of dropout."""
    plain, saving, (values, mask) = make(name, dropout=0.3), make(name, dropout=0.3), make_inputs(name)
    tune(saving, Tuning(checkpointing=True))
    torch.manual_seed(3)
    expected = run(plain, values, mask)
    torch.manual_seed(3)
    assert_same_bits(run(saving, values, mask), expected)
    assert_same_bits(dict(saving.named_buffers()), dict(plain.named_buffers()))
