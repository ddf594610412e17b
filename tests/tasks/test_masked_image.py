"""Masked image modelling: input of the encoder, counts, the target, errors."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmtrain.data.order import draw_seed
from mmtrain.encoders.image.vit import ViT
from mmtrain.tasks.masked_image import MaskedImage, normalised_patches, sine_positions
from mmtrain.types import Padded
from tests.batches import DIM, make_batch, make_encoders, make_model


def make_task(**options: Any) -> MaskedImage:
    parts = {"input": "image", "mask_ratio": 0.75, "decoder_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2}
    return MaskedImage(**{"dims": {"image": DIM}, "encoders": make_encoders(), "weight": 1.0, **parts, **options})


def test_patches_are_cut_as_a_loop_cuts_them() -> None:
    pictures = torch.randn(2, 3, 8, 8)
    result = normalised_patches(pictures, 4)
    assert result.shape == (2, 4, 48)
    for b in range(2):
        for n, (top, left) in enumerate(((0, 0), (0, 4), (4, 0), (4, 4))):
            patch = torch.stack(
                [pictures[b, c, top + y, left + x] for y in range(4) for x in range(4) for c in range(3)]
            )
            torch.testing.assert_close(result[b, n], (patch - patch.mean()) / (patch.var() + 1e-6).sqrt())
    plain = normalised_patches(torch.full((1, 3, 8, 8), 0.3), 4)
    assert plain.abs().max() < 1e-3


def test_the_visible_patches_alone_go_through_the_encoder() -> None:
    """The content of a masked patch changes no token; a visible patch changes all."""
    torch.manual_seed(0)
    vit = make_encoders()["image"].eval()
    pictures = torch.randn(1, 3, 8, 8)
    seen = torch.tensor([[True, False, False, True]])
    tokens, mask = vit(pictures, seen)
    assert tokens.shape[1] == 3 and mask.all()
    other = pictures.clone()
    other[:, :, :4, 4:] += 1.0
    assert torch.equal(vit(other, seen).tokens, tokens)
    other[:, :, :4, :4] += 1.0
    assert not torch.isclose(vit(other, seen).tokens, tokens).all(dim=2).any()
    assert torch.equal(vit(pictures, torch.ones(1, 4).bool()).tokens, vit(pictures, None).tokens)


def test_hidden_pixels_reach_the_loss_as_targets_only_and_visible_ones_as_input_only() -> None:
    model = make_model(tasks=("masked_image",), fusion=None).eval()
    batch = make_batch([1, 2], [0, 0])
    task = model.named_tasks()["masked_image"]
    assert isinstance(task, MaskedImage)
    hidden = task._hidden(batch)
    assert hidden.sum(dim=1).tolist() == [2, 2]
    pictures = batch.inputs["image"].values.clone().requires_grad_()
    batch.inputs["image"] = Padded(pictures, None)
    painted = model.view(batch).predictions("masked_image")
    (by_input,) = torch.autograd.grad(painted.pixels.sum(), pictures, retain_graph=True)
    (by_target,) = torch.autograd.grad((painted.wanted**2).sum() + painted.wanted[:, 0].sum(), pictures)
    for gradient, where in ((by_input, ~hidden), (by_target, hidden)):
        of_patch = gradient.unflatten(2, (2, 4)).unflatten(4, (2, 4)).abs().sum(dim=(1, 3, 5)).flatten(1)
        assert torch.equal(of_patch > 0, where)


def test_the_loss_is_the_mean_square_over_hidden_patches() -> None:
    model = make_model(tasks=("masked_image",), fusion=None).eval()
    task, batch = model.named_tasks()["masked_image"], make_batch([1, 0, 2], [0, 0, 0])
    assert isinstance(task, MaskedImage)
    painted = model.view(batch).predictions("masked_image")
    total, count = task.loss(painted, batch)
    assert count == task.count(batch) == 4
    hidden = task._hidden(batch)
    wanted = normalised_patches(batch.inputs["image"].values.float(), 4)
    places = [(row, patch) for row in (0, 2) for patch in range(4) if hidden[row, patch]]
    expected = sum(((painted.pixels[i] - wanted[place]) ** 2).mean() for i, place in enumerate(places))
    torch.testing.assert_close(total, expected)
    metric: Any = task.metrics()
    task.update(metric, painted, batch)
    truth = torch.stack([wanted[place] for place in places])
    assert metric.compute()["r2"].item() == pytest.approx(
        1 - float((painted.pixels - truth).square().sum() / truth.square().sum()), abs=1e-6
    )


def test_it_learns_to_paint() -> None:
    torch.manual_seed(0)
    model = make_model(tasks=("masked_image",), fusion=None)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    batch = make_batch([1, 2], [0, 0])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses: list[float] = []
    for step in range(250):
        optimizer.zero_grad()
        draws = torch.tensor([draw_seed(0, step, row) for row in range(2)])
        ((total, count),) = model.losses(replace(batch, draws=draws)).values()
        (total / count).backward()
        optimizer.step()
        losses.append(float(total / count))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": "picture"}, "input = picture, but there is image, text"),
        ({"input": "text"}, r"encoder.text cannot omit patches; set encoder/text=vit"),
        ({"mask_ratio": 1.0}, "mask_ratio = 1.0; set it between 0 and 1"),
        ({"decoder_dim": 10}, "decoder_dim = 10 is not divisible by 4; set it to 12"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**options)


def test_positions_tell_every_patch_from_every_other() -> None:
    positions: Tensor = sine_positions(4, 16)
    assert positions.shape == (16, 16)
    distance = torch.cdist(positions, positions) + torch.eye(16)
    assert distance.min() > 0.1
    assert isinstance(make_encoders()["image"], ViT)
