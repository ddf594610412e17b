"""Calibration error against torchmetrics' and against the formula; real ranks."""

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from mmtrain.metrics.calibration import NUM_BINS, CalibrationError
from tests.ranks import on_ranks

SIZE, CLASSES = 200, 3


def make(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(SIZE, CLASSES, generator=generator, dtype=torch.float64)
    return logits.softmax(dim=1), torch.randint(0, CLASSES, (SIZE,), generator=generator)


def shown(probability: Tensor, truth: Tensor, batch: int = 37) -> CalibrationError:
    metric = CalibrationError()
    for start in range(0, len(truth), batch):
        metric.update(probability[start : start + batch], truth[start : start + batch])
    return metric


@pytest.mark.parametrize("seed", range(3))
def test_it_is_that_of_torchmetrics(seed: int) -> None:
    probability, truth = make(seed)
    theirs = MulticlassCalibrationError(CLASSES, n_bins=NUM_BINS, norm="l1")
    theirs.update(probability, truth)
    assert shown(probability, truth).compute().item() == pytest.approx(theirs.compute().item(), abs=1e-6)


def test_certainty_that_is_right_so_often_costs_nothing() -> None:
    probability = torch.tensor([[0.75, 0.25]] * 4, dtype=torch.float64)
    assert shown(probability, torch.tensor([0, 0, 0, 1])).compute() == 0.0
    assert shown(probability, torch.tensor([1, 1, 1, 1])).compute() == 0.75
    assert shown(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).compute() == 0.0


def share_of_rank(rank: int, world_size: int) -> Tensor:
    """The last rank gets no rows."""
    probability, truth = make()
    rows = torch.arange(SIZE) % (world_size - 1) == rank
    metric = CalibrationError()
    if rank < world_size - 1:
        metric.update(probability[rows], truth[rows])
    return metric.compute()


def test_real_ranks_give_the_value_of_one() -> None:
    expected = shown(*make()).compute()
    for value in on_ranks(3, share_of_rank, 3):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
