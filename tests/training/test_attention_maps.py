"""What attention maps say: over pictures word by word, and how much each modality is read."""

import pytest
import torch
from torch import Tensor

from mmtrain.model import LazyView
from mmtrain.training.attention_maps import attention_items, attention_share
from mmtrain.types import Padded
from tests.batches import VOCABULARY, make_batch, make_model

WORDS = ["[PAD]", *(f"##w{i}" for i in range(1, VOCABULARY))]


def view_of(fusion: str) -> LazyView:
    """Row 1 has no text, row 2 no picture."""
    model = make_model(tasks=("classification",), fusion=fusion).eval()
    return model.view(make_batch([1, 2, 0, 4], [11, 0, 13, 12]))


def names(ids: list[int]) -> list[str]:
    return [WORDS[i] for i in ids]


def test_words_over_their_picture() -> None:
    view = view_of("cross_attn")
    result = attention_items(view, image="image", text="text", words=names)
    assert [a.id for a in result] == ["row-0", "row-3"]
    maps = view.attention()["text", "image"]
    for row, exhibit in zip((0, 3), result, strict=True):
        values, mask = view.batch.inputs["text"]
        ids = values[row][mask[row]].tolist()
        assert exhibit.query == "text" and exhibit.words == [f"w{i}" for i in ids]
        for place, grid in enumerate(exhibit.grids):
            expected = maps[row, place, 1:].view(2, 2)  # behind the class token
            torch.testing.assert_close(torch.tensor(grid), expected.float(), rtol=0, atol=1e-7)


def test_fused_tokens_together() -> None:
    view = view_of("perceiver")
    result = attention_items(view, image="image", text="text", words=names)
    assert [(a.id, a.query, a.words) for a in result] == [(f"row-{r}", "fused", ["all together"]) for r in (0, 3)]
    expected = view.attention()["fused", "image"][0, :, 1:].mean(dim=0).view(2, 2)
    torch.testing.assert_close(torch.tensor(result[0].grids[0]), expected.float(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("fusion", ["concat", "gated_cross_attn"])
def test_nothing_without_maps_and_what_there_is_with_them(fusion: str) -> None:
    result = attention_items(view_of(fusion), image="image", text="text", words=names)
    assert len(result) == (0 if fusion == "concat" else 2)


def test_tokens_that_form_no_square_are_not_drawn() -> None:
    model, batch = make_model(tasks=("classification",)).eval(), make_batch([1, 2], [12, 17])
    ids, mask = batch.inputs["text"]
    batch.inputs["text"] = Padded(ids[:, :3], mask[:, :3])
    assert attention_items(model.view(batch), image="text", text="image", words=names) == []


def shares(*weights: list[float]) -> Tensor:
    return torch.tensor([weights], dtype=torch.double)


def test_only_a_choice_between_modalities_counts() -> None:
    """`a` reads b and c in one softmax and itself in another; b reads each in its own; d has no choice.

    `e` reads b and c each in its own, too, and takes the mean, or the present one.
    """
    maps = {
        ("a", "b"): shares([0.25, 0.35]),
        ("a", "c"): shares([0.4]),
        ("a", "a"): shares([1.0]),
        ("b", "a"): shares([1.0]),
        ("b", "c"): shares([1.0]),
        ("d", "a"): shares([1.0]),
        ("e", "b"): shares([0.5], [1.0]),
        ("e", "c"): shares([0.2, 0.3], [0.0, 0.0]),
        ("fused", "a"): shares([0.1]),
        ("fused", "b"): shares([0.2, 0.0]),
        ("fused", "fused"): shares([0.7]),
    }
    mass = attention_share(maps, ["a", "b", "c", "d"])
    assert {m: float(value) for m, value in mass.items()} == pytest.approx({"a": 0.1, "b": 0.8, "c": 0.4, "d": 0.0})
    assert not any(attention_share({}, ["a", "b"]).values())
