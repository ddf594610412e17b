"""An image encoder on several images per row, and a language model that reads each at its placeholder."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from mmtrain.encoders.image.pictures import Pictures
from mmtrain.model import MultimodalModel
from mmtrain.types import Batch, Padded
from tests.batches import gradients, make_batch, make_encoders
from tests.dialogues import IMAGE, batch_of, make_task
from tests.fusion.connectors.test_gated_cross_attn import connector_of

MASK = torch.tensor([[True, True], [True, False], [False, False]])


def make() -> Pictures:
    return Pictures(image=make_encoders()["image"])


def pixels_of(*keys: int) -> torch.Tensor:
    return make_batch(list(keys), [0] * len(keys)).inputs["image"].values


def test_each_picture_is_encoded_alone_and_padding_is_not() -> None:
    encoder = make().double().eval()
    values = torch.stack([pixels_of(1, 2), pixels_of(3, 4), pixels_of(5, 6)])
    values[~MASK] = torch.nan
    tokens, mask = encoder(values, MASK)
    alone = [encoder.image(pixels_of(key), None) for key in (1, 2, 3)]
    length = alone[0].tokens.shape[1]
    assert mask.sum(dim=1).tolist() == [2 * length, length, 0]
    torch.testing.assert_close(tokens[mask], torch.cat([features.tokens[0] for features in alone]))
    assert not tokens[~mask].any()
    tokens.sum().backward()
    assert all(gradient.isfinite().all() for gradient in gradients(encoder).values())
    assert len(encoder.layers()) == len(encoder.image.layers())  # type: ignore[operator]


def two_pictures(order: list[int], ids: list[int]) -> Batch:
    """Return a row with two images and two placeholders, and a row with one image and one placeholder."""
    rows = [(ids, [0] * (len(ids) - 2) + [1, 1]), ([IMAGE, 7, 1], [0, 1, 1])]
    values = torch.stack([pixels_of(*order), pixels_of(4, 0)])
    mask = torch.tensor([[True, True], [True, False]])
    there = torch.tensor([True, True])
    return replace(batch_of(rows, [1, 1]), inputs={"image": Padded(values, mask)}, present={"image": there})


@pytest.mark.parametrize("pack", [None, 100])
@pytest.mark.parametrize("next_to", [False, True])
def test_a_language_model_reads_each_in_its_place(next_to: bool, pack: int | None) -> None:
    """Swapping two images or their placeholders changes the loss; a single image gives the same loss as before."""
    torch.manual_seed(0)
    encoder = make()
    options: dict[str, Any] = {"connector": connector_of()} if next_to else {}
    task = make_task(encoders={"image": encoder}, pack=pack, **options)
    for name, parameter in task.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model = MultimodalModel(encoders={"image": encoder}, fusion=None, tasks={"answers": task}).double().eval()
    ids = [5, IMAGE, 6, IMAGE, 8, 1]
    one, other = (model.losses(two_pictures(order, ids))["answers"][0] for order in ([1, 2], [2, 1]))
    assert not torch.isclose(one, other)
    single = make_task(encoders={"image": encoder.image}, **options).double().eval()
    single.load_state_dict(task.state_dict())
    alone = MultimodalModel(encoders={"image": encoder.image}, fusion=None, tasks={"answers": single})
    row = batch_of([([IMAGE, 7, 1], [0, 1, 1])], [4])
    second = two_pictures([1, 2], ids)
    second.targets["chat"][0, :, 1] = second.targets["chat"][0, :, 1].clamp(max=0)  # the first row has no answer
    torch.testing.assert_close(model.losses(second)["answers"], alone.losses(row)["answers"])
