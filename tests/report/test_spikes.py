"""Loss spikes: found in noise, not seen where there are none, drawn and counted."""

import numpy as np

from mmtrain.report.curves import Panel, draw
from mmtrain.report.spikes import WINDOW, spikes


def losses(seed: int, number: int = 400) -> np.ndarray:
    """Falling with normal noise."""
    draws = np.random.default_rng(seed)
    return 2.0 + 3.0 * np.exp(-np.arange(number) / 60) + 0.05 * draws.standard_normal(number)


def test_a_spike_is_found_where_it_is() -> None:
    for seed in range(20):
        values = losses(seed)
        values[150] += 2.0
        values[300:302] += 1.0
        assert {150, 300, 301} <= set(spikes(values).nonzero()[0].tolist()) <= {150, 300, 301}


def test_noise_and_falling_are_no_spikes() -> None:
    assert sum(spikes(losses(seed)).sum() for seed in range(50)) <= 2


def test_what_is_short_flat_or_not_finite_is_none() -> None:
    assert not spikes(np.ones(WINDOW)).any()
    assert not spikes(np.ones(100)).any()
    assert not spikes(np.full(100, np.nan)).any()
    values = losses(0)
    values[100:130] = np.nan
    values[200] = np.inf
    assert not spikes(values).any()


def test_the_page_marks_and_counts_them() -> None:
    values = losses(1)
    values[150] += 2.0
    points = {step: float(v) for step, v in enumerate(values)}
    panel = Panel("All tasks together", "loss", {"train": points, "val": {399: 2.0}})
    assert panel.num_spikes == 1
    drawing = draw(panel, index=0, best_step=None)
    assert "1 spike at step 150" in drawing
    assert Panel("a", "accuracy", {"train": points}).num_spikes == 0
