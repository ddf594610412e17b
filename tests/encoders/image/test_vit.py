"""The ViT against timm's with the same weights."""

import pytest
import torch
from torch import nn

from mmtrain.encoders.image.vit import ViT
from tests.batches import gradients

timm = pytest.importorskip("timm.models.vision_transformer")

SHAPE = {"patch_size": 4, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0}


def make_vit(**options: float | None) -> ViT:
    vit = ViT(
        image_size=8, dim=8, **{**SHAPE, "dropout": 0.0, "drop_path": 0.0, "layer_scale": None, **options}
    ).double()
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.3)
    return vit


@pytest.mark.parametrize("scale", [None, 0.1])
def test_values_and_gradients_are_those_of_timm(scale: float | None) -> None:
    ours = make_vit(layer_scale=scale)
    shape = {"img_size": 8, "embed_dim": 8, "num_classes": 0, "global_pool": "", "init_values": scale} | SHAPE
    theirs = timm.VisionTransformer(**shape).double()
    theirs.load_state_dict(ours.state_dict())  # strict: the names and shapes are the same
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
    vit = ViT(image_size=8, dim=64, **SHAPE, dropout=0.0, drop_path=0.0, layer_scale=None)
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
        ViT(image_size=size, dim=8, **{**SHAPE, "patch_size": patch}, dropout=0.0, drop_path=0.0, layer_scale=None)
