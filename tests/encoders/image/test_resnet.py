"""The ResNet against torchvision's own forward."""

from pathlib import Path

import pytest
import torch
import torchvision

from mmtrain.encoders.image.resnet import ResNet
from tests.batches import gradients


def test_tokens_are_the_last_feature_map_of_torchvision() -> None:
    """Torchvision's classifier reads the mean of the map; without it, the output is the mean of our tokens."""
    ours = ResNet(name="resnet18", small_input=False, pretrained=None).double().eval()
    theirs = torchvision.models.resnet18(weights=None)
    theirs.fc = torch.nn.Identity()
    theirs.double().eval().load_state_dict(ours.net.state_dict())
    maps = []
    theirs.layer4.register_forward_hook(lambda module, inputs, out: maps.append(out))
    pictures = torch.randn(2, 3, 64, 96, dtype=torch.float64, requires_grad=True)
    copies = pictures.detach().clone().requires_grad_()
    out, mask = ours(pictures)
    expected = theirs(copies)
    assert out.shape == (2, 2 * 3, ours.dim) and mask.shape == (2, 6) and mask.all()
    assert torch.equal(out[1, 4], maps[0][1, :, 1, 1])  # row by row
    torch.testing.assert_close(out.mean(dim=1), expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(expected)
    (out.mean(dim=1) * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(pictures.grad, copies.grad, rtol=0, atol=1e-12)
    mine, reference = gradients(ours.net), gradients(theirs)
    for name in mine:
        torch.testing.assert_close(mine[name], reference[name], rtol=0, atol=1e-11)


@pytest.mark.parametrize(("small_input", "tokens"), [(False, 1), (True, 16)])
def test_small_input_keeps_the_resolution(small_input: bool, tokens: int) -> None:
    resnet = ResNet(name="resnet18", small_input=small_input, pretrained=None)
    out, mask = resnet(torch.randn(2, 3, 32, 32))
    assert out.shape == (2, tokens, resnet.dim) and mask.shape == (2, tokens)
    out.sum().backward()
    gradients(resnet)


@pytest.mark.parametrize(("name", "dim"), [("resnet18", 512), ("resnet50", 2048)])
def test_the_width_is_said(name: str, dim: int) -> None:
    with torch.device("meta"):
        assert ResNet(name=name, small_input=False, pretrained=None).dim == dim


def test_a_picture_does_not_depend_on_its_batch_in_evaluation() -> None:
    resnet = ResNet(name="resnet18", small_input=False, pretrained=None).double().eval()
    pictures = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    together = resnet(pictures).tokens
    for row in range(3):
        torch.testing.assert_close(resnet(pictures[row : row + 1]).tokens[0], together[row], rtol=0, atol=1e-12)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no ResNet named 'resnet19'; it has .*resnet18"):
        ResNet(name="resnet19", small_input=False, pretrained=None)


def test_weights_of_torchvision_are_taken_and_the_classifier_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    published = torchvision.models.ResNet18_Weights
    monkeypatch.setattr(published, "get_state_dict", lambda *args, **options: theirs.state_dict())
    theirs.fc = torch.nn.Identity()
    pictures = torch.randn(2, 3, 64, 64)
    for pretrained in (True, str(tmp_path / "weights.pth")):
        ours = ResNet(name="resnet18", small_input=False, pretrained=pretrained).eval()
        torch.testing.assert_close(ours(pictures).tokens.mean(dim=1), theirs(pictures), rtol=1e-5, atol=1e-5)
        wanted = ResNet.preprocessing(name="resnet18", pretrained=pretrained)
        geometry = {"size": 224, "resize_size": 256, "interpolation": "bilinear", "crop_offset": "round"}
        assert wanted == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], **geometry}
    assert ResNet.preprocessing(name="resnet18", pretrained=None) == {}


def test_weights_that_cannot_be_had_or_do_not_fit_are_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_reach(*args: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", out_of_reach)
    message = r"weights of resnet18 cannot be loaded from https://.*resnet18.*: no network\n    download that file"
    with pytest.raises(ValueError, match=message):
        ResNet(name="resnet18", small_input=False, pretrained=True)
    with pytest.raises(ValueError, match=r"small_input = true, but the stem .* is 7x7; set small_input to false"):
        ResNet(name="resnet18", small_input=True, pretrained=True)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"layer1.0.conv3.weight is missing in the file"):
        ResNet(name="resnet50", small_input=False, pretrained=str(tmp_path / "weights.pth"))
    own = ResNet(name="resnet18", small_input=True, pretrained=None)
    torch.save(own.net.state_dict(), tmp_path / "own.pth")
    again = ResNet(name="resnet18", small_input=True, pretrained=str(tmp_path / "own.pth"))
    assert torch.equal(again.net.conv1.weight, own.net.conv1.weight)


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("resnet50", 16)])
def test_layers_are_the_stem_and_the_residual_blocks(name: str, blocks: int) -> None:
    with torch.device("meta"):
        resnet = ResNet(name=name, small_input=False, pretrained=None)
    layers = resnet.layers()
    assert len(layers) == 1 + blocks
    parameters = [id(p) for layer in layers for part in layer for p in part.parameters()]
    assert sorted(parameters) == sorted(id(p) for p in resnet.parameters())
