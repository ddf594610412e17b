"""Video models against the library's own on videos whose last frame is repeated."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    VideoMAEImageProcessor,
    VideoMAEVideoProcessor,
    VivitImageProcessor,
    VivitVideoProcessor,
)

from mmtrain.encoders.video.huggingface import HuggingFaceVideo
from tests.batches import assert_same_bits, gradients

BLOCKS = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
CONFIGS: dict[str, dict[str, Any]] = {
    "videomae": {"model_type": "videomae", "patch_size": 4, "tubelet_size": 2, "use_mean_pooling": False, **BLOCKS},
    "videomae (no norm)": {"model_type": "videomae", "patch_size": 4, "tubelet_size": 2, **BLOCKS},
    "timesformer": {"model_type": "timesformer", "patch_size": 4, **BLOCKS},
    "vivit": {"model_type": "vivit", "tubelet_size": [2, 4, 4], **BLOCKS},
}
TOKENS = {"videomae": 2 * 4, "videomae (no norm)": 2 * 4, "timesformer": 1 + 4 * 4, "vivit": 1 + 2 * 4}
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
STILL = [[0, 1, 2, 3], [0, 1, 1, 1], [0, 0, 0, 0]]
every_model = pytest.mark.parametrize("name", CONFIGS)


def make_encoder(name: str) -> HuggingFaceVideo:
    torch.manual_seed(0)
    encoder = HuggingFaceVideo(pretrained=None, config=CONFIGS[name], num_frames=4, image_size=8).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder


def films() -> Tensor:
    return torch.randn(4, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def save(name: str, folder: Path, **options: Any) -> nn.Module:
    """Save a checkpoint of the library without zero weights, and return its model."""
    config = AutoConfig.for_model(**{**CONFIGS[name], "num_frames": 4, "image_size": 8, **options})
    model = AutoModel.from_config(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model.eval()


@every_model
def test_values_and_gradients_are_those_of_the_library_on_each_film_by_itself(name: str) -> None:
    encoder = make_encoder(name).eval()
    config = AutoConfig.for_model(**{**CONFIGS[name], "num_frames": 4, "image_size": 8})
    model = AutoModel.from_config(config).double().eval()
    if name == "vivit":
        model.pooler = None
    model.load_state_dict(encoder.net.state_dict())
    values = films()
    tokens, mask = encoder(values, MASK)
    assert tokens.shape == (4, TOKENS[name], 8) and torch.equal(
        mask, MASK.any(dim=1, keepdim=True).expand(-1, TOKENS[name])
    )
    weight = torch.randn_like(tokens)
    (tokens * weight).sum().backward()
    for row, places in enumerate(STILL):
        expected = model(values[row : row + 1, places]).last_hidden_state[0]
        torch.testing.assert_close(tokens[row], expected, rtol=0, atol=1e-11)
        (expected * weight[row]).sum().backward()
    theirs = gradients(model)
    for key, gradient in gradients(encoder.net).items():
        torch.testing.assert_close(gradient, theirs[key], rtol=1e-8, atol=1e-9)
        assert gradient.any()


@every_model
@pytest.mark.parametrize("garbage", [math.nan, 1e30])
def test_what_stands_under_a_false_mask_changes_no_bit(name: str, garbage: float) -> None:
    encoder = make_encoder(name).eval()

    def run(value: float) -> dict[str, Tensor]:
        encoder.zero_grad()
        leaf = films().masked_fill(~MASK[:, :, None, None, None], value).requires_grad_()
        tokens, mask = encoder(leaf, MASK)
        tokens.square().sum().backward()
        return {"tokens": tokens.detach(), "mask": mask, "input": leaf.grad, **gradients(encoder)}

    clean = run(0.0)
    assert all(value.isfinite().all() for value in clean.values()) and not clean["input"][~MASK].any()
    assert not clean["tokens"][3].any()
    assert_same_bits(clean, run(garbage))


@every_model
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_and_a_batch_of_one(name: str, autocast: bool) -> None:
    encoder = make_encoder(name).eval()
    exact = encoder(films()[:1], None).tokens
    dtype = torch.float32 if autocast else torch.bfloat16
    encoder.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tokens, mask = encoder(films()[:1].to(dtype), None)
    assert mask.all()
    torch.testing.assert_close(tokens.double(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


@every_model
def test_layers_are_patches_and_blocks(name: str) -> None:
    encoder = make_encoder(name)
    layers = encoder.layers()
    assert len(layers) == 3
    parameters = [id(p) for layer in layers for part in layer for p in part.parameters()]
    assert len(parameters) == len(set(parameters))
    top = [n for n, p in encoder.named_parameters() if id(p) not in parameters]
    assert top == ([] if "no norm" in name else ["net.layernorm.weight", "net.layernorm.bias"])


@every_model
def test_a_checkpoint_is_taken(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path)
    encoder = HuggingFaceVideo(pretrained=str(tmp_path), config=None, num_frames=4, image_size=8).eval()
    values = films()[:1].float()
    expected = model(values).last_hidden_state
    torch.testing.assert_close(encoder(values, None).tokens, expected, rtol=1e-5, atol=1e-5)


def test_videomae_takes_more_frames_by_its_waves(tmp_path: Path) -> None:
    model = save("videomae", tmp_path)
    encoder = HuggingFaceVideo(pretrained=str(tmp_path), config=None, num_frames=6, image_size=8).eval()
    longer = AutoModel.from_config(
        AutoConfig.for_model(**{**CONFIGS["videomae"], "num_frames": 6, "image_size": 8})
    ).eval()
    longer.load_state_dict(model.state_dict())
    values = torch.randn(1, 6, 3, 8, 8)
    torch.testing.assert_close(encoder(values, None).tokens, longer(values).last_hidden_state, rtol=1e-5, atol=1e-5)


def test_timesformer_takes_more_frames_and_pixels_by_interpolation(tmp_path: Path) -> None:
    model = save("timesformer", tmp_path)
    encoder = HuggingFaceVideo(pretrained=str(tmp_path), config=None, num_frames=7, image_size=16).eval()
    time, space = encoder.net.embeddings.time_embeddings, encoder.net.embeddings.position_embeddings
    assert time.shape == (1, 7, 8) and space.shape == (1, 1 + 16, 8)
    assert torch.equal(time[:, ::2], model.embeddings.time_embeddings)  # from 4 to 7: every second one is old
    tokens = encoder(torch.randn(2, 7, 3, 16, 16), None).tokens
    assert tokens.shape == (2, 1 + 7 * 16, 8)
    tokens.sum().backward()
    gradients(encoder)


@pytest.mark.parametrize(
    "processor", [VideoMAEImageProcessor, VideoMAEVideoProcessor, VivitImageProcessor, VivitVideoProcessor]
)
def test_the_pixels_are_those_of_the_library(processor: type[Any], tmp_path: Path) -> None:
    """For both the older processor file for images and the newer one for videos."""
    size: dict[str, Any] = {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}}
    theirs = processor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4], **size)
    theirs.save_pretrained(tmp_path)
    ours = HuggingFaceVideo.preprocessing(pretrained=str(tmp_path))
    frames = [np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(2)]
    expected = torch.as_tensor(np.asarray(theirs(frames, return_tensors="pt")["pixel_values"]))[0]
    pixels = torch.stack([torch.from_numpy(frame).permute(2, 0, 1) for frame in frames]) / 255
    mean, std = (torch.tensor(ours[key])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close((pixels - mean) / std, expected.float(), rtol=1e-4, atol=1e-5)


def test_from_scratch_nothing_is_wanted_of_the_input() -> None:
    assert HuggingFaceVideo.preprocessing(pretrained=None) == {}


def test_what_cannot_be_is_refused_with_advice(tmp_path: Path) -> None:
    def make(pretrained: str | None, config: dict[str, Any] | None, frames: int = 4, size: int = 8) -> HuggingFaceVideo:
        return HuggingFaceVideo(pretrained=pretrained, config=config, num_frames=frames, image_size=size)

    with pytest.raises(ValueError, match="are both null; set one of them"):
        make(None, None)
    with pytest.raises(ValueError, match=r"model_type is vit; this encoder accepts videomae, timesformer, vivit"):
        make(None, {"model_type": "vit"})
    with pytest.raises(ValueError, match=r"num_frames = 5 is not divisible by 2, the frames of a token; .* to 6"):
        make(None, CONFIGS["videomae"], frames=5)
    save("vivit", tmp_path)
    with pytest.raises(
        ValueError, match=r"num_frames = 8, but pretrained = .* needs 4; set data.inputs.video.num_frames to 4"
    ):
        make(str(tmp_path), None, frames=8)
    with pytest.raises(
        ValueError, match=r"image_size = 16, but pretrained = .* needs 8; set data.inputs.video.size to 8"
    ):
        make(str(tmp_path), None, size=16)
    with pytest.raises(ValueError, match="a video has 4 frames, but num_frames = 2"):
        make(None, CONFIGS["videomae"], frames=2)(films().float(), MASK)
    with pytest.raises(ValueError, match=r"pretrained = no/such-model cannot be loaded"):
        HuggingFaceVideo.preprocessing(pretrained="no/such-model")
