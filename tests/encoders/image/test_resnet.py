"""The ResNet against torchvision's own forward."""

import pytest
import torch
import torchvision

from mmtrain.encoders.image.resnet import ResNet
from tests.batches import gradients


def test_tokens_are_the_last_feature_map_of_torchvision() -> None:
    """Their classifier reads the mean of the map; without one it gives the mean of our tokens."""
    ours = ResNet(name="resnet18", small_input=False).double().eval()
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
    resnet = ResNet(name="resnet18", small_input=small_input)
    out, mask = resnet(torch.randn(2, 3, 32, 32))
    assert out.shape == (2, tokens, resnet.dim) and mask.shape == (2, tokens)
    out.sum().backward()
    gradients(resnet)


@pytest.mark.parametrize(("name", "dim"), [("resnet18", 512), ("resnet50", 2048)])
def test_the_width_is_said(name: str, dim: int) -> None:
    with torch.device("meta"):
        assert ResNet(name=name, small_input=False).dim == dim


def test_a_picture_does_not_depend_on_its_batch_in_evaluation() -> None:
    resnet = ResNet(name="resnet18", small_input=False).double().eval()
    pictures = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    together = resnet(pictures).tokens
    for row in range(3):
        torch.testing.assert_close(resnet(pictures[row : row + 1]).tokens[0], together[row], rtol=0, atol=1e-12)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no ResNet named 'resnet19'; it has .*resnet18"):
        ResNet(name="resnet19", small_input=False)
