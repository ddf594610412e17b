"""G-Blend: the blend matches the formula, weights follow the losses, and a restored run continues exactly."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmtrain.balance.modality.gradient_blend import GradientBlend, blend
from mmtrain.model import MultimodalModel
from mmtrain.types import Batch
from tests.batches import DIM, make_model, random_batch

DIMS = {"image": DIM, "text": DIM}
NAME = "classification"


def make(every: int = 1) -> tuple[MultimodalModel, GradientBlend]:
    model = make_model(tasks=[NAME, "image_class"])
    balance = GradientBlend(tasks=model.named_tasks(), dims=DIMS, update_every=every).double()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in balance.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model, balance


def sums_of(model: MultimodalModel, balance: GradientBlend, batch: Batch) -> dict[str, Tensor]:
    view = model.view(batch)
    sums = {n: task.loss(view.predictions(n), batch)[0] for n, task in model.named_tasks().items()}
    return balance.losses(view, sums)


def plain(model: MultimodalModel, balance: GradientBlend, batch: Batch) -> list[tuple[Tensor, int]]:
    """Return (sum, count) of the cross entropy of the fused head and of each modality's, row by row."""
    results = []
    for modality in ("all", "image", "text"):
        total, count = torch.zeros((), dtype=torch.float64), 0
        for row in range(len(batch)):
            available = [m for m in DIMS if batch.present[m][row]]
            if not batch.labelled["label"][row] or not available or modality not in ("all", *available):
                continue
            if modality == "all":
                logits = model(batch)[NAME][row]
            else:
                head: Any = balance.heads[NAME][modality]
                features = model.view(batch).encoded(modality)
                pooled = features.tokens[row][features.mask[row]].mean(dim=0)
                logits = head.linear(F.layer_norm(pooled, (DIM,), head.norm.weight, head.norm.bias))
            loss = F.cross_entropy(logits.float(), batch.targets["label"][row], label_smoothing=0.1)
            total, count = total + loss, count + 1
        results.append((total, count))
    return results


def test_a_blend_is_the_weighted_sum_and_teaches_every_head() -> None:
    model, balance = make()
    balance.weights[NAME] = [0.5, 0.3, 0.2]
    batch = random_batch(1)
    sums = sums_of(model, balance, batch)
    expected = sum(w * s for w, (s, _) in zip([0.5, 0.3, 0.2], plain(model, balance, batch), strict=True))
    torch.testing.assert_close(sums[NAME], expected, rtol=1e-5, atol=1e-6, check_dtype=False)
    untouched, _ = model.tasks["image_class"].loss(model(batch)["image_class"], batch)
    torch.testing.assert_close(sums["image_class"], untouched, rtol=0, atol=1e-12)
    sums[NAME].backward()
    assert all(p.grad is not None and p.grad.any() for p in balance.parameters())


def epoch(model: MultimodalModel, balance: GradientBlend, seeds: tuple[int, int], scale: float) -> list[list[float]]:
    """Run two steps and a validation, and return their mean losses, recomputed. `scale` makes epochs differ."""
    with torch.no_grad():
        for parameter in [*model.parameters(), *balance.parameters()]:
            parameter.mul_(scale)
    train = [random_batch(seeds[0]), random_batch(seeds[0] + 1)]
    val = [random_batch(seeds[1]), random_batch(seeds[1] + 1)]
    for batch in train:
        sums_of(model, balance, batch)
        balance.modulate(model.encoders, seed=0)
    for batch in val:
        balance.validate(model.view(batch))
    balance.end_validation()
    means = []
    for batches in (train, val):
        parts = [plain(model, balance, batch) for batch in batches]
        means.append([sum(p[k][0].item() for p in parts) / sum(p[k][1] for p in parts) for k in range(3)])
    return means


def test_weights_follow_from_training_and_validation_losses() -> None:
    model, balance = make()
    first = epoch(model, balance, (10, 20), 1.0)
    assert balance.weights[NAME] == [1 / 3] * 3  # nothing to compare with yet
    second = epoch(model, balance, (12, 20), 0.7)
    falls = [max(first[1][k] - second[1][k], 0.0) for k in range(3)]
    gaps = [(second[1][k] - second[0][k]) - (first[1][k] - first[0][k]) for k in range(3)]
    shares = [fall / gap**2 for fall, gap in zip(falls, gaps, strict=True)]
    assert sum(fall > 0 for fall in falls) >= 2
    assert balance.weights[NAME] == pytest.approx([s / sum(shares) for s in shares], rel=1e-3)
    names = ["modality_balance/all", "modality_balance/image", "modality_balance/text"]
    assert balance.values() == dict(zip(names, balance.weights[NAME], strict=True))


def test_when_nothing_generalises_the_weights_stay() -> None:
    weights = [0.2, 0.8]
    assert blend([[1.0, 1.0], [1.0, 1.0]], [[0.5, 0.5], [1.1, 1.0]], weights) == weights
    assert blend([[1.0, 1.0], [1.0, 1.0]], [[0.5, 0.5], [1.1, 0.9]], weights) == [0.0, 1.0]


def test_what_is_restored_goes_on_as_it_was() -> None:
    """Saved in the middle of an epoch, with an update at every second validation."""
    model, balance = make(every=2)
    epoch(model, balance, (10, 20), 1.0)
    sums_of(model, balance, random_batch(3))
    balance.modulate(model.encoders, seed=0)
    other = make(every=2)[1]
    other.load_state_dict(balance.state_dict())
    other.load_extra_state(balance.extra_state())
    for one in (balance, other):
        for scale in (0.9, 0.9, 0.9):
            epoch(make()[0], one, (14, 20), scale)
    assert one.weights == balance.weights == other.weights
    assert balance.extra_state() == other.extra_state()


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="update_every = 0; set it to 1 or more"):
        make(every=0)
