"""Torchvision's classification models against their own forward: the head's input is the mean of our tokens."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from mmtrain.encoders.image.torchvision import HEADS, TorchVision
from tests.batches import gradients

# builder and image size, all small
MODELS = {
    "densenet121": 64,
    "efficientnet_b0": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "convnext_tiny": 64,
}
# for all families, the stem and blocks
LAYERS = {
    "alexnet": 5,
    "convnext_tiny": 1 + (3 + 3 + 9 + 3) + 3,
    "densenet121": 1 + 4 + 3,
    "efficientnet_b0": 1 + 16 + 1,
    "mobilenet_v2": 1 + 17 + 1,
    "mobilenet_v3_small": 1 + 11 + 1,
    "regnet_y_400mf": 1 + (1 + 3 + 6 + 6),
    "squeezenet1_1": 1 + 8,
    "swin_t": 1 + (2 + 2 + 6 + 2) + 3,
    "swin_v2_t": 1 + (2 + 2 + 6 + 2) + 3,
    "vgg11_bn": 8,
    "vit_b_16": 1 + 12,
}


def make(name: str, image_size: int, pretrained: str | bool | None = None) -> TorchVision:
    torch.manual_seed(0)
    return TorchVision(name=name, pretrained=pretrained, image_size=image_size)


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_torchvision(name: str) -> None:
    ours = make(name, MODELS[name]).double().eval()
    theirs = torchvision.models.get_model(name, weights=None).double().eval()
    missing, left = theirs.load_state_dict(ours.net.state_dict(), strict=False)
    assert not left and all(n.split(".")[0] in HEADS for n in missing)
    for head in ("classifier", "fc", "head"):
        if head in dict(theirs.named_children()):
            setattr(theirs, head, nn.Flatten() if name != "squeezenet1_1" else nn.AdaptiveAvgPool2d(1))
    pictures = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    out, mask = ours(pictures)
    assert out.shape == (*mask.shape, ours.dim) and mask.all()
    expected = theirs(pictures)
    torch.testing.assert_close(out.mean(dim=1), expected, rtol=1e-9, atol=1e-12)
    weight = torch.randn_like(expected)
    (out.mean(dim=1) * weight).sum().backward()
    (expected * weight).sum().backward()
    reference = dict(theirs.named_parameters())
    for key, gradient in gradients(ours.net).items():
        grad = reference[key].grad
        torch.testing.assert_close(gradient, grad, rtol=1e-8, atol=1e-12 + 1e-10 * grad.abs().max().item())


def test_a_feature_map_is_read_row_by_row() -> None:
    ours = make("mobilenet_v3_small", 64).eval()
    pictures = torch.randn(1, 3, 64, 96)
    assert torch.equal(ours(pictures).tokens[0, 4], ours.net.features(pictures)[0, :, 1, 1])
    swin = make("swin_t", 64).eval()
    assert torch.equal(swin(pictures).tokens[0, 4], swin.net.norm(swin.net.features(pictures))[0, 1, 1])


def small_vit(image_size: int) -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=image_size, patch_size=16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12
    )


def test_a_vit_gives_what_its_encoder_gives_and_resizes_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_model(name: str, *, weights: None, image_size: int) -> nn.Module:
        return small_vit(image_size)

    theirs = small_vit(64)
    nn.init.normal_(theirs.encoder.pos_embedding)
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    same, larger = (make("vit_b_16", size, str(tmp_path / "vit.pth")) for size in (64, 96))
    theirs.heads = nn.Identity()
    pictures = torch.randn(2, 3, 64, 64)
    tokens, mask = same.eval()(pictures)
    assert tokens.shape == (2, 1 + 16, 8) and mask.all() and same.dim == 8
    torch.testing.assert_close(tokens[:, 0], theirs.eval()(pictures), rtol=1e-5, atol=1e-6)
    positions, trained = larger.net.encoder.pos_embedding, theirs.encoder.pos_embedding
    square = trained[:, 1:].reshape(1, 4, 4, 8).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=6, mode="bicubic", antialias=True).permute(0, 2, 3, 1).reshape(1, 36, 8)
    assert torch.equal(positions[:, :1], trained[:, :1])
    torch.testing.assert_close(positions[:, 1:], resized)
    larger(torch.randn(1, 3, 96, 96)).tokens.sum().backward()
    gradients(larger)


@pytest.mark.parametrize("name", LAYERS)
def test_every_family_is_built_and_tells_its_layers(name: str) -> None:
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # a RegNet computes its widths with tensors
        encoder = make(name, 64)
    layers = encoder.layers()
    assert len(layers) == LAYERS[name]
    parts = [part for layer in layers for part in layer]
    parameters = [id(p) for part in parts for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
    assert len(parameters) == len(set(parameters))
    top = {n.rpartition(".")[0] for n, p in encoder.named_parameters() if id(p) not in parameters}
    norms = {"densenet121": "net.features.norm5", "vit_b_16": "net.encoder.ln"}
    expected = "net.norm" if name.startswith("swin") else norms.get(name)
    assert top == ({expected} if expected else set())


def test_densenets_of_old_names_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = torchvision.models.densenet121(weights=None)
    old = {n.replace("norm1", "norm.1").replace("conv2.", "conv.2."): w for n, w in theirs.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "weights.pth")
    ours = make("densenet121", 64, str(tmp_path / "weights.pth"))
    assert all(torch.equal(w, theirs.state_dict()[n]) for n, w in ours.net.state_dict().items())


def test_preprocessing_is_that_of_the_weights() -> None:
    assert TorchVision.preprocessing(name="swin_t", pretrained=None) == {}
    wanted = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    wanted |= {"size": 224, "resize_size": 232, "interpolation": "bicubic", "crop_offset": "round"}
    assert TorchVision.preprocessing(name="swin_t", pretrained=True) == wanted


def test_what_cannot_be_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"name = resnet18; .* accepts .*swin_t(.|\n)*for a ResNet use encoder/image=r"
    ):
        make("resnet18", 64)
    with pytest.raises(ValueError, match=r"image_size = 60 is not divisible by 16, the patch .*; set .* to 64"):
        make("vit_b_16", 60)
    with pytest.raises(ValueError, match=r"alexnet does not accept image_size = 8: (.|\n)* something larger"):
        make("alexnet", 8)
    with pytest.raises(ValueError, match=r"pretrained = nowhere.pth is not a file"):
        make("mobilenet_v3_small", 64, "nowhere.pth")
    torch.save({"features.0.0.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"does not fit: features.0.1.weight is missing in the file"):
        make("mobilenet_v3_small", 64, str(tmp_path / "weights.pth"))
