"""The ViT against timm's with the same weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models import vision_transformer as timm
from torch import nn

from mmtrain.encoders.image.vit import ViT
from tests.batches import gradients

SHAPE = {"patch_size": 4, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0}
PLAIN = {"dropout": 0.0, "drop_path": 0.0, "layer_scale": None, "color_features": 0, "pretrained": None}


def make_vit(**options: float | None) -> ViT:
    vit = ViT(image_size=8, dim=8, **{**SHAPE, **PLAIN, **options}).double()
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.3)
    return vit


@pytest.mark.parametrize("scale", [None, 0.1])
def test_values_and_gradients_are_those_of_timm(scale: float | None) -> None:
    ours = make_vit(layer_scale=scale)
    shape = {"img_size": 8, "embed_dim": 8, "num_classes": 0, "global_pool": "", "init_values": scale} | SHAPE
    theirs = timm.VisionTransformer(**shape).double()
    theirs.load_state_dict(ours.state_dict())  # strict: names and shapes are equal
    pictures = torch.randn(3, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    copies = pictures.detach().clone().requires_grad_()
    out, mask = ours(pictures)
    expected = theirs.forward_features(copies)
    assert out.shape == (3, 1 + 4, 8)
    assert mask.shape == (3, 5) and mask.dtype is torch.bool and mask.all()
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(pictures.grad, copies.grad, rtol=0, atol=1e-11)
    mine, reference = gradients(ours), gradients(theirs)
    for name in mine:
        torch.testing.assert_close(mine[name], reference[name], rtol=0, atol=1e-11)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    vit = make_vit(dropout=0.1, drop_path=0.2).eval()
    pictures = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    together = vit(pictures).tokens
    for row in range(5):
        torch.testing.assert_close(vit(pictures[row : row + 1]).tokens[0], together[row], rtol=0, atol=1e-12)


def test_stochastic_depth_grows_with_depth() -> None:
    rates = [block.drop_path.rate for block in make_vit(drop_path=0.3).blocks]
    assert rates == pytest.approx([0.0, 0.15, 0.3])
    assert make_vit(drop_path=0.3, depth=1).blocks[0].drop_path.rate == 0.0


def test_the_start_is_that_of_the_authors_and_its_class_token_not_zero() -> None:
    vit = ViT(image_size=8, dim=64, **SHAPE, **PLAIN)
    assert vit.pos_embed.std().item() == pytest.approx(0.02, rel=0.2)
    assert 0 < vit.cls_token.abs().max() < 1e-4
    for name, parameter in vit.blocks.named_parameters():
        if name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")):
            assert parameter.std().item() == pytest.approx((2 / sum(parameter.shape)) ** 0.5, rel=0.1), name


def test_bfloat16_runs() -> None:
    vit = make_vit().bfloat16()
    tokens, mask = vit(torch.randn(1, 3, 8, 8).bfloat16())
    assert tokens.dtype is torch.bfloat16 and tokens.isfinite().all() and mask.all()


@pytest.mark.parametrize(("size", "patch", "advice"), [(64, 7, 8), (30, 7, 6), (13, 4, 1)])
def test_a_patch_that_does_not_divide_is_refused_with_advice(size: int, patch: int, advice: int) -> None:
    with pytest.raises(ValueError, match=f"image_size = {size} .* patch_size = {patch};.* such as {advice}$"):
        ViT(image_size=size, dim=8, **{**SHAPE, "patch_size": patch}, **PLAIN)


def tiny_of_timm(name: str, *, pretrained: bool, **options: object) -> nn.Module:
    """Replaces timm's download."""
    assert pretrained and name == "vit_tiny_patch16_224"
    torch.manual_seed(0)
    net = timm.VisionTransformer(img_size=32, patch_size=16, embed_dim=192, depth=2, num_heads=3, num_classes=5)
    nn.init.normal_(net.pos_embed)
    return net


def pretrained_vit(pretrained: str | bool, image_size: int = 32, **options: float | None) -> ViT:
    shape = {"patch_size": 16, "dim": 192, "depth": 2, "num_heads": 3, "mlp_ratio": 4.0}
    return ViT(image_size=image_size, **{**shape, **PLAIN, "pretrained": pretrained, **options})


@pytest.mark.parametrize("source", ["true", "name", "file"])
def test_weights_of_timm_are_taken_and_positions_resized(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timm.create_model", tiny_of_timm)
    theirs = tiny_of_timm("vit_tiny_patch16_224", pretrained=True).eval()
    save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
    sources = {"true": True, "name": "vit_tiny_patch16_224", "file": str(tmp_path / "vit.safetensors")}
    pictures = torch.randn(2, 3, 32, 32)
    ours = pretrained_vit(sources[source]).eval()
    torch.testing.assert_close(ours(pictures).tokens, theirs.forward_features(pictures), rtol=1e-5, atol=1e-5)
    resized = pretrained_vit(sources[source], image_size=64).pos_embed
    expected = resample_abs_pos_embed(theirs.pos_embed, [4, 4], num_prefix_tokens=1)
    torch.testing.assert_close(resized, expected, rtol=0, atol=1e-6)
    geometry = {"size": 224, "resize_size": 248, "interpolation": "bicubic", "crop_offset": "round"}
    wanted = {} if source == "file" else {"mean": [0.5] * 3, "std": [0.5] * 3, **geometry}
    assert ViT.preprocessing(pretrained=sources[source], dim=192) == wanted


def test_preprocessing_is_that_of_the_named_weights() -> None:
    assert ViT.preprocessing(pretrained=None, dim=7) == {}
    wanted = ViT.preprocessing(pretrained="deit_tiny_patch16_224", dim=192)
    geometry = {"size": 224, "resize_size": 248, "interpolation": "bicubic", "crop_offset": "round"}
    assert wanted == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], **geometry}


def test_layers_are_the_embedding_and_the_blocks() -> None:
    vit = make_vit()
    layers = vit.layers()
    assert layers[0] == (vit.patch_embed, vit.cls_token, vit.pos_embed)
    assert layers[1:] == [(block,) for block in vit.blocks]


def test_weights_that_cannot_be_had_or_do_not_fit_are_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"no ViT of timm has dim = 200; they have 192 \(vit_tiny(.*); set dim to"):
        pretrained_vit(True, dim=200, num_heads=4)
    with pytest.raises(ValueError, match=r"color_features = 4, .* set color_features to 0, or pretrained to null"):
        pretrained_vit(True, color_features=4)
    with pytest.raises(ValueError, match="timm has no model named vit_tinny_patch16_224; the nearest are vit_tiny_pat"):
        pretrained_vit("vit_tinny_patch16_224")
    monkeypatch.setattr("timm.create_model", tiny_of_timm)
    with pytest.raises(ValueError, match=r"num_heads = 6, but pretrained = .* has 3; set num_heads to 3"):
        pretrained_vit("vit_tiny_patch16_224", num_heads=6)
    with pytest.raises(ValueError, match=r"does not fit: blocks.2.*is missing in the file(.|\n)*set the sizes"):
        pretrained_vit(True, depth=3)
    weights = tiny_of_timm("vit_tiny_patch16_224", pretrained=True).state_dict()
    save_file(weights | {"pos_embed": torch.zeros(1, 8, 192)}, tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=r"does not fit: 7 positions of patches are not a square grid"):
        pretrained_vit(str(tmp_path / "vit.safetensors"))


def test_a_hub_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_reach(name: str, *, pretrained: bool, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", out_of_reach)
    message = (
        r"weights of vit_tiny_patch16_224 \(timm/vit_tiny.*\) cannot be loaded: no network\n"
        r"    set pretrained to the path"
    )
    with pytest.raises(ValueError, match=message):
        pretrained_vit(True)
