"""The small convolutional network against torch's functions and a hand-written norm."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmtrain.encoders.image.cnn import ImageCNN, Stage
from tests.batches import gradients


def make_cnn(dropout: float = 0.0) -> ImageCNN:
    torch.manual_seed(0)
    cnn = ImageCNN(channels=[4, 6, 8], num_groups=2, dropout=dropout).double()
    for parameter in cnn.parameters():
        nn.init.normal_(parameter, std=0.3)
    return cnn


def group_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    groups = x.unflatten(1, (2, -1))
    mean = groups.mean(dim=(2, 3, 4), keepdim=True)
    variance = groups.var(dim=(2, 3, 4), keepdim=True, correction=0)
    x = ((groups - mean) / (variance + norm.eps).sqrt()).flatten(1, 2)
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


def halving(x: Tensor, part: nn.Module) -> Tensor:
    return F.gelu(group_norm(F.conv2d(x, part.conv.weight, stride=2, padding=1), part.norm))


def reference(cnn: ImageCNN, x: Tensor) -> Tensor:
    x = halving(x, cnn.stem)
    for stage in cnn.stages:
        assert isinstance(stage, Stage)
        x = halving(x, stage.down)
        added = F.gelu(group_norm(F.conv2d(x, stage.conv1.weight, padding=1), stage.norm1))
        x = F.gelu(x + group_norm(F.conv2d(added, stage.conv2.weight, padding=1), stage.norm2))
    return x


def test_values_and_gradients() -> None:
    cnn = make_cnn()
    pictures = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    out, mask = cnn(pictures)
    expected = reference(cnn, pictures)
    assert cnn.dim == 8 and out.shape == (2, 2 * 3, 8) and mask.shape == (2, 6) and mask.all()
    torch.testing.assert_close(out[1, 4], expected[1, :, 1, 1], rtol=0, atol=1e-12)  # row by row
    torch.testing.assert_close(out, expected.flatten(2).transpose(1, 2), rtol=0, atol=1e-12)
    weight, parameters = torch.randn_like(out), list(cnn.parameters())
    theirs = torch.autograd.grad((expected.flatten(2).transpose(1, 2) * weight).sum(), parameters)
    for mine, other in zip(torch.autograd.grad((out * weight).sum(), parameters), theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-11)


def test_pictures_do_not_see_each_other_in_training() -> None:
    cnn = make_cnn().train()
    pictures = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    together = cnn(pictures).tokens
    torch.testing.assert_close(cnn(pictures[1:2]).tokens[0], together[1], rtol=0, atol=1e-12)
    together.sum().backward()
    gradients(cnn)


def test_dropout_takes_channels_and_tokens_in_training_only() -> None:
    cnn, pictures = make_cnn(0.5), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert not torch.equal(cnn(pictures).tokens, cnn(pictures).tokens)
    cnn.eval()
    expected = reference(cnn, pictures).flatten(2).transpose(1, 2)
    torch.testing.assert_close(cnn(pictures).tokens, expected, rtol=0, atol=1e-12)


def test_layers_are_the_stem_and_the_stages() -> None:
    cnn = make_cnn()
    assert cnn.layers() == [(cnn.stem,), (cnn.stages[0],), (cnn.stages[1],)]


def test_bfloat16_runs() -> None:
    tokens, mask = make_cnn().bfloat16()(torch.randn(1, 3, 16, 16).bfloat16())
    assert tokens.dtype is torch.bfloat16 and tokens.isfinite().all() and mask.all()


def test_what_cannot_be_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match=r"channels = \[4\] has no stage after the stem; set it to"):
        ImageCNN(channels=[4], num_groups=2, dropout=0.0)
    with pytest.raises(ValueError, match=r"channels has 6, .* divisible by num_groups = 4; set it to 8, or num_groups"):
        ImageCNN(channels=[4, 6], num_groups=4, dropout=0.0)
