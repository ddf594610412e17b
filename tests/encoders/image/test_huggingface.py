"""Image models of transformers against the library with the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, ViTForImageClassification, ViTImageProcessor

from mmtrain.encoders.image.huggingface import MODEL_TYPES, HuggingFaceImage
from tests.batches import gradients

BLOCKS = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
VIT = {**BLOCKS, "image_size": 32, "patch_size": 8}
STAGES = {"hidden_sizes": [4, 8], "depths": [1, 2], "num_stages": 2, "image_size": 32}
WINDOWS = {"image_size": 32, "embed_dim": 4, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
TEXT = {**BLOCKS, "vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2}
TOWERS = {"vision_config": VIT, "text_config": TEXT}
CONFIGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(MODEL_TYPES, VIT),
    **dict.fromkeys(("clip", "siglip"), TOWERS),
    **dict.fromkeys(("convnext", "convnextv2"), STAGES),
    **dict.fromkeys(("swin", "swinv2"), WINDOWS),
    "beit": {**VIT, "use_mask_token": True, "use_relative_position_bias": True},
}
# parameters that are in no layer
TOP = {"swin": "layernorm", "swinv2": "layernorm", "dinov3_vit": "norm", "siglip": "post_layernorm"}
TOP |= dict.fromkeys(("vit", "deit", "dinov2", "dinov2_with_registers"), "layernorm")
TOP |= {"siglip_vision_model": "post_layernorm"}
every_model = pytest.mark.parametrize("name", MODEL_TYPES)


def saved(name: str, folder: Path) -> Any:
    """Save a checkpoint with random weights, and return its model."""
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(name, **CONFIGS[name]))
    for key, parameter in model.named_parameters():
        if "norm" not in key:
            nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return (model.vision_model if name in ("clip", "siglip") else model).eval()


def make(folder: Path, image_size: int = 32) -> HuggingFaceImage:
    return HuggingFaceImage(pretrained=str(folder), config=None, image_size=image_size).eval()


def tokens_of(out: Tensor) -> Tensor:
    return out if out.ndim == 3 else torch.einsum("bchw->bhwc", out).flatten(1, 2)


@every_model
def test_values_and_gradients_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path).double()
    ours = make(tmp_path).double()
    for size in (32, 48):
        ours.zero_grad()
        theirs.zero_grad()
        pictures = torch.randn(1, 3, size, size, dtype=torch.float64)
        out, mask = ours(pictures)
        values = {} if size == 32 else ours.options
        expected = tokens_of(theirs(pictures, **values).last_hidden_state)
        assert out.shape == (*mask.shape, ours.dim) and mask.all()
        torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-9)  # parts of the library compute in float32
        weight = torch.randn_like(out)
        (out * weight).sum().backward()
        (expected * weight).sum().backward()
        mine = gradients(ours.net)
        trained = {n: p for n, p in theirs.named_parameters() if p.grad is not None and p.grad.any()}
        assert trained.keys() <= mine.keys()  # no part that affects the output was dropped
        for key, parameter in trained.items():
            scale = parameter.grad.abs().max().item()
            torch.testing.assert_close(mine[key], parameter.grad, rtol=1e-5, atol=1e-6 * scale)


@every_model
def test_layers_are_the_embedding_and_blocks_or_stages(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path)
    encoder = make(tmp_path)
    layers = encoder.layers()
    assert len(layers) == 3
    parts = [part for layer in layers for part in layer]
    parameters = [id(p) for part in parts for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
    assert len(parameters) == len(set(parameters))
    top = {n.rpartition(".")[0] for n, p in encoder.named_parameters() if id(p) not in parameters}
    assert top == ({f"net.{TOP[name]}"} if name in TOP else set())


def test_random_weights_are_of_the_size_of_the_picture() -> None:
    config = {key: value for key, value in VIT.items() if key != "image_size"}
    encoder = HuggingFaceImage(pretrained=None, config={"model_type": "vit", **config}, image_size=16)
    tokens, mask = encoder(torch.randn(1, 3, 16, 16))
    assert tokens.shape == (1, 1 + 4, 8) and mask.all()
    assert encoder.net.embeddings.position_embeddings.shape == (1, 5, 8)
    tokens.sum().backward()
    gradients(encoder)


def test_a_checkpoint_of_a_classifier_without_a_pooler_is_taken(tmp_path: Path) -> None:
    """As in Google's ViTs: the head is unused, and the missing pooler is no error."""
    theirs = ViTForImageClassification(AutoConfig.for_model("vit", **VIT)).eval()
    theirs.save_pretrained(tmp_path)
    pictures = torch.randn(2, 3, 32, 32)
    expected = theirs.vit(pictures).last_hidden_state
    torch.testing.assert_close(make(tmp_path)(pictures).tokens, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["vit", "siglip", "dinov2", "convnext", "swin"])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_runs(name: str, autocast: bool, tmp_path: Path) -> None:
    saved(name, tmp_path)
    encoder, pictures = make(tmp_path), torch.randn(1, 3, 48, 48)
    exact = encoder(pictures).tokens
    dtype = torch.float32 if autocast else torch.bfloat16
    encoder.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tokens = encoder(pictures.to(dtype)).tokens
    torch.testing.assert_close(tokens.float(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


def test_preprocessing_is_read_from_the_folder(tmp_path: Path) -> None:
    assert HuggingFaceImage.preprocessing(pretrained=None) == {}
    ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(tmp_path)
    geometry = {"size": 224, "resize_size": [224, 224], "interpolation": "bilinear", "crop_offset": "floor"}
    geometry["resize_backend"] = "torch"
    wanted = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], **geometry}
    assert HuggingFaceImage.preprocessing(pretrained=str(tmp_path)) == wanted
    ViTImageProcessor(do_normalize=False).save_pretrained(tmp_path)
    wanted = {"mean": [0.0] * 3, "std": [1.0] * 3, **geometry}
    assert HuggingFaceImage.preprocessing(pretrained=str(tmp_path)) == wanted


def test_what_cannot_be_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pretrained = .*nowhere cannot be loaded"):
        make(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"config.model_type is bert; this encoder accepts clip, siglip"):
        HuggingFaceImage(pretrained=None, config={"model_type": "bert"}, image_size=32)
    saved("swin", tmp_path)
    with pytest.raises(ValueError, match=r"swin does not accept image_size = 16(.|\n)*set .* to 32, as it was"):
        make(tmp_path, image_size=16)
    with pytest.raises(ValueError, match=r"cannot be loaded: (.|\n)*preprocessor_config.json"):
        HuggingFaceImage.preprocessing(pretrained=str(tmp_path))
