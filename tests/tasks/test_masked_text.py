"""Masked language modelling: rates, only masked tokens count, inputs, errors."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.tasks.masked_text import MaskedText
from mmtrain.types import Batch, Features, Padded, Vocabulary
from tests.batches import DIM, IDS, make_batch, make_model, random_batch

NAMES = [str(i) for i in range(100)]
LARGE = Vocabulary(names=NAMES, special=frozenset({0, 1, 2}), mask=3)


def make_task(vocabulary: Vocabulary = IDS, reads: str = "text", **options: Any) -> MaskedText:
    parts = {"modality": "text", "mask_ratio": 0.15, "num_heads": 2, "weight": 1.0, **options}
    dims = {"text": DIM, "image": DIM, "fused": DIM}
    return MaskedText(dims=dims, vocabularies={"text": vocabulary}, input=reads, **parts)


class Watch:
    """A view whose encoder records its input."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.given: list[Padded] = []

    def with_inputs(self, inputs: dict[str, Padded]) -> "Watch":
        self.given.append(inputs["text"])
        return self

    def encoded(self, modality: str) -> Features:
        ids, mask = self.given[-1]
        return Features(torch.zeros(*ids.shape, DIM), mask if mask is not None else torch.ones_like(ids).bool())


def long_batch(rows: int = 400, length: int = 43) -> Batch:
    """Return texts of 40 words between special tokens."""
    ids = torch.randint(4, 100, (rows, length), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -2], ids[:, -1] = 1, 2, 0
    batch = make_batch([0] * rows, [1] * rows)
    batch.inputs["text"] = Padded(ids, torch.arange(length) < torch.full((rows, 1), length - 1))
    return batch


@pytest.mark.parametrize("training", [True, False])
def test_of_the_hidden_80_are_masked_10_random_and_10_as_they_are(training: bool) -> None:
    torch.manual_seed(0)
    task, batch = make_task(LARGE).train(training), long_batch()
    view = Watch(batch)
    predictions = task(view)
    before, after = batch.inputs["text"].values, view.given[0].values
    assert len(predictions.wanted) == 400 * 6 == int(task.count(batch))  # 15% of 40
    changed = before != after
    masked = (after == 3) & changed
    assert masked.sum() / (400 * 6) == pytest.approx(0.8, abs=0.03)
    random = (changed & ~masked).sum() / (400 * 6)
    assert random == pytest.approx(0.1 * 96 / 97, abs=0.025)
    assert not changed[:, [0, -2, -1]].any()
    assert (after[changed] >= 3).all() and len(after[changed & ~masked].unique()) > 60
    places = torch.zeros(43).index_add(0, changed.nonzero()[:, 1], torch.ones(int(changed.sum())))
    assert places[1:-2].min() > 20  # all positions are equally frequent


def test_the_loss_is_the_cross_entropy_of_the_hidden_tokens() -> None:
    model = make_model(tasks=("masked_text",), fusion=None).eval()
    batch, task = random_batch(3), model.named_tasks()["masked_text"]
    assert isinstance(task, MaskedText)
    predictions = model.view(batch).predictions("masked_text")
    chosen = task._chosen(batch)
    ids, mask = batch.inputs["text"]
    corrupted = task._corrupted(ids, chosen, batch.draws)
    total = torch.zeros((), dtype=torch.double)
    for row, place in chosen.nonzero().tolist():
        tokens = model.encoders["text"](corrupted[row : row + 1], mask[row : row + 1]).tokens
        total = total - task.head(tokens[0, place]).log_softmax(0)[ids[row, place]]
    loss, count = task.loss(predictions, batch)
    assert count == chosen.sum() == task.count(batch)
    torch.testing.assert_close(loss.double(), total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_what_is_hidden_follows_from_the_draw_of_a_row_in_any_batch(training: bool) -> None:
    task = make_task(mask_ratio=0.5).train(training)
    full = make_batch([0] * 6, [1, 2, 3, 4, 5, 6], first=10)
    part = make_batch([0] * 3, [4, 5, 6], first=13)
    assert torch.equal(task._chosen(full)[3:], task._chosen(part))
    assert not torch.equal(task._chosen(full), task._chosen(replace(full, draws=full.draws + 1)))


def test_what_is_fused_counts_where_something_stands_beside_the_text_and_is_read() -> None:
    batch = make_batch([1, 0, 2, 3], [1, 2, 0, 3])
    fused = make_task(reads="fused", mask_ratio=0.5)
    assert fused._chosen(batch).any(dim=1).tolist() == [True, False, False, True]
    model = make_model(tasks=("masked_fusion",)).eval()
    logits = [model.view(make_batch([key, key], [1, 3])).predictions("masked_fusion").logits for key in (1, 2)]
    assert not torch.equal(*logits)


def test_it_learns_a_text_by_heart_and_from_a_picture_what_the_text_does_not_say() -> None:
    """One masked word, which only the image determines."""
    torch.manual_seed(0)
    words = {1: 5, 2: 6, 3: 7}
    batch = make_batch([1, 2, 3] * 4, [1] * 12)
    ids = torch.tensor([words[int(key)] for key in batch.keys["image"]]).unsqueeze(1)
    batch.inputs["text"] = Padded(ids, torch.ones_like(ids, dtype=torch.bool))
    scores = {}
    for name in ("masked_text", "masked_fusion"):
        model = make_model(tasks=(name,), fusion="cross_attn" if name == "masked_fusion" else None)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
        for step in range(150):
            optimizer.zero_grad()
            ((total, count),) = model.losses(replace(batch, draws=batch.draws + 100 * step)).values()
            (total / count).backward()
            optimizer.step()
        predictions = model.eval().view(batch).predictions(name)
        hidden = predictions.logits.argmax(dim=1) == predictions.wanted
        scores[name] = float(hidden.float().mean())
    assert scores["masked_fusion"] > 0.9 > 0.7 > scores["masked_text"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "txt"}, "modality = txt is not a text; there is text"),
        ({"reads": "image"}, "input = image; set it to text or fused"),
        ({"mask_ratio": 0.0}, "mask_ratio = 0.0; set it between 0 and 1"),
        ({"vocabulary": Vocabulary(NAMES, frozenset({0}), None)}, "has no mask token"),
        ({"reads": "fused", "decides": object()}, "a late fusion predicts from each alone"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**options)


def test_an_encoder_that_gives_one_token_is_refused() -> None:
    view = Watch(make_batch([0, 0], [1, 2]))
    view.encoded = lambda modality: Features(torch.zeros(2, 1, DIM), torch.ones(2, 1).bool())  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"has 1; set encoder.text.pooling=tokens"):
        make_task()(view)


def test_the_mean_over_parts_is_that_of_the_whole() -> None:
    """In evaluation, where the masked positions depend on the row."""
    model = make_model(tasks=("masked_text",), fusion=None).eval()
    sums: list[tuple[Tensor, Tensor]] = []
    for keys, first in (([1, 2, 3, 4, 0], 0), ([1, 2], 0), ([3, 4, 0], 2)):
        batch = make_batch([0] * len(keys), keys, first=first)
        sums.append(model.losses(batch)["masked_text"])
    torch.testing.assert_close(sums[1][0] + sums[2][0], sums[0][0])
    assert sums[1][1] + sums[2][1] == sums[0][1]
    assert F.relu(sums[0][0]) > 0
