"""Timm models against timm, with the library's small test models."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from mmtrain.encoders.image.timm import Timm
from mmtrain.layers.finetuning import Tuning, rates_of
from tests.batches import gradients

# (B, T, D), (B, C, H, W), (B, H, W, C); number of entries of layers(), and parameters in no layer
MODELS = {
    "test_vit": (1 + 6, {"norm"}),
    "test_convnext": (1 + 4, set()),
    "test_efficientnet": (1 + 5, {"conv_head", "bn2"}),
    "test_resnet": (1 + 4, set()),
    "test_mambaout": (1 + 4, set()),
}
every_model = pytest.mark.parametrize("name", MODELS)


def make(name: str, pretrained: str | bool | None = None, image_size: int = 64, drop_path: float = 0.0) -> Timm:
    torch.manual_seed(0)
    return Timm(name=name, pretrained=pretrained, image_size=image_size, drop_path=drop_path)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])
def test_rates_of_layers_are_those_of_timm(name: str) -> None:
    """But for the norm after the last block, which keeps the full rate, as in the code of BEiT and MAE."""
    rates, encoder = {}, make(name, image_size=160)
    net = timm.create_model(name, num_classes=5)
    for group in param_groups_layer_decay(net, layer_decay=0.75):
        rates |= {id(p): group["lr_scale"] for p in group["params"]}
    theirs = {n: rates[id(p)] for n, p in net.named_parameters() if not n.startswith(("norm", "head", "fc_norm"))}
    result = rates_of(encoder, Tuning(layer_decay=0.75))
    mine = {n: result[id(p)] for n, p in encoder.net.named_parameters()}
    assert {n: mine.pop(n) for n in theirs} == pytest.approx(theirs)
    assert mine and set(mine.values()) == {1.0} and all("norm" in n for n in mine)


def their_tokens(net: nn.Module, pictures: Tensor, name: str) -> Tensor:
    out = net.forward_features(pictures)
    if out.ndim == 3:
        return out
    return torch.einsum("bhwc->bhwc" if name == "test_mambaout" else "bchw->bhwc", out).reshape(
        len(out), -1, net.num_features
    )


def reference(name: str) -> nn.Module:
    """Return timm's own model, with its head."""
    torch.manual_seed(1)
    sizes = {"img_size": 64} if name == "test_vit" else {}
    return timm.create_model(name, num_classes=5, **sizes)


@every_model
def test_values_and_gradients_are_those_of_timm(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    ours = make(name, str(tmp_path / "weights.safetensors")).double().eval()
    theirs = theirs.double().eval()
    pictures = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    out, mask = ours(pictures)
    expected = their_tokens(theirs, pictures, name)
    assert out.shape == (*mask.shape, ours.dim) and mask.all()
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    trained = dict(theirs.named_parameters())
    mine = gradients(ours.net)
    for key, gradient in mine.items():
        other = trained[key].grad
        torch.testing.assert_close(gradient, other, rtol=1e-8, atol=1e-12 + 1e-10 * other.abs().max().item())
    assert mine.keys() == {n for n, p in trained.items() if p.grad is not None}  # only unused parts were dropped


@every_model
def test_layers_are_timms_groups(name: str) -> None:
    encoder = make(name)
    layers, (count, top) = encoder.layers(), MODELS[name]
    assert len(layers) == count
    parts = [part for layer in layers for part in layer]
    assert not any(isinstance(part, nn.ModuleList) for part in parts)
    parameters = [id(p) for part in parts for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
    assert len(parameters) == len(set(parameters))
    assert {n.split(".")[1] for n, p in encoder.named_parameters() if id(p) not in parameters} == top


@pytest.mark.parametrize("name", ["poolformer_s12", "cait_xxs24_224", "rdnet_tiny"])
def test_layers_of_models_that_have_no_groups(name: str) -> None:
    with torch.device("meta"):
        layers = make(name, image_size=224).layers()
    assert len(layers) >= 5 and all(layers)


def test_a_model_that_insists_on_a_pooling_is_built_with_it() -> None:
    with torch.device("meta"):
        encoder = make("inception_next_atto")
        assert encoder(torch.empty(1, 3, 64, 64)).tokens.shape == (1, 4, encoder.dim)


def test_positions_are_resized_as_timm_does(tmp_path: Path) -> None:
    theirs = reference("test_vit")
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    resized = make("test_vit", str(tmp_path / "weights.pth"), image_size=96).net
    expected = timm.layers.resample_abs_pos_embed(theirs.pos_embed, [6, 6], num_prefix_tokens=1)
    torch.testing.assert_close(resized.pos_embed, expected, rtol=0, atol=1e-6)
    assert torch.equal(resized.blocks[1].mlp.fc1.weight, theirs.blocks[1].mlp.fc1.weight)


def test_weights_of_other_names_are_taken_in_their_order(tmp_path: Path) -> None:
    theirs = reference("test_efficientnet").eval()
    held = [(f"_part{i}.{n.rpartition('.')[2]}", w) for i, (n, w) in enumerate(theirs.state_dict().items())]
    torch.save(OrderedDict(held), tmp_path / "weights.pth")
    ours = make("test_efficientnet", str(tmp_path / "weights.pth")).eval()
    pictures = torch.randn(2, 3, 64, 64)
    expected = their_tokens(theirs, pictures, "test_efficientnet")
    torch.testing.assert_close(ours(pictures).tokens, expected, rtol=1e-5, atol=1e-5)
    held[3], held[4] = held[4], held[3]
    torch.save(OrderedDict(held), tmp_path / "shuffled.pth")
    with pytest.raises(ValueError, match=r"shuffled.pth does not fit: conv_stem.weight is missing in the file"):
        make("test_efficientnet", str(tmp_path / "shuffled.pth"))


def test_timms_own_weights_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    requested, create = [], timm.create_model

    def create_model(name: str, *, pretrained: bool, **options: object) -> nn.Module:
        requested.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", create_model)
    make("test_resnet", True)
    assert requested == [False, True]


def test_stochastic_depth_is_passed_on() -> None:
    encoder, pictures = make("test_vit", drop_path=0.5), torch.randn(2, 3, 64, 64)
    assert not torch.equal(encoder(pictures).tokens, encoder(pictures).tokens)
    encoder.eval()
    assert torch.equal(encoder(pictures).tokens, encoder(pictures).tokens)


def test_preprocessing_is_that_of_the_weights() -> None:
    def of(name: str) -> dict[str, Any]:
        return {key: Timm.preprocessing(name=name, pretrained=True)[key] for key in ("mean", "std")}

    assert Timm.preprocessing(name="convnext_tiny", pretrained=None) == {}
    assert of("convnext_tiny") == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    # the published lite0 was trained with (x - 127) / 128
    assert of("tf_efficientnet_lite0") == {"mean": [0.5] * 3, "std": [0.5] * 3}
    geometry = {"size": 224, "resize_size": 256, "interpolation": "bicubic", "crop_offset": "round"}
    assert geometry.items() <= Timm.preprocessing(name="tf_efficientnet_lite0", pretrained=True).items()
    tagged = of("vit_base_patch16_224.orig_in21k"), of("vit_base_patch16_clip_224.openai")
    assert tagged[0]["mean"] == [0.5] * 3 and tagged[1]["mean"][0] == pytest.approx(0.4815, abs=1e-4)


def test_what_cannot_be_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"timm has no model named resnet19; the nearest are .*resnet18"):
        make("resnet19")
    with pytest.raises(ValueError, match=r"timm has no model named resnet18.a2; the nearest are resnet18.a2_in1k"):
        make("resnet18.a2")
    with pytest.raises(ValueError, match=r"vgg11 cannot be built with .*drop_path_rate = 0.1"):
        make("vgg11", drop_path=0.1)
    with pytest.raises(ValueError, match=r"its features are list, neither a map of .* nor a sequence"):
        make("crossvit_tiny_240", image_size=240)
    with pytest.raises(ValueError, match=r"weights of mixer_s16_224 \(none are published\) cannot be loaded"):
        make("mixer_s16_224", True, image_size=32)
    save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"weights.safetensors does not fit: (.|\n)*set the sizes of the encoder"):
        make("test_resnet", str(tmp_path / "weights.safetensors"))

    def out_of_reach(name: str, *, pretrained: bool, **options: object) -> nn.Module:
        if pretrained:
            raise OSError("no network")
        return create(name, **options)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", out_of_reach)
    with pytest.raises(
        ValueError, match=r"weights of test_resnet \(timm/test_resnet.*\) cannot be loaded: no network\n +set"
    ):
        make("test_resnet", True)
