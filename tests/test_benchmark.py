"""scripts/benchmark.py counts steps over the ends of epochs, and fails rather than print a figure of nothing."""

from pathlib import Path

import pytest

from tests.tiny import TINY_MODEL, make_tables

ROOT = Path(__file__).resolve().parent.parent


def test_both_loops_are_timed_over_the_ends_of_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 steps an epoch, 9 steps."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import benchmark

    monkeypatch.setattr(benchmark, "STEPS", 6)
    tables = make_tables(tmp_path / "data")
    (rates,) = benchmark.measure(["data=files", f"data.root={tables}", *TINY_MODEL], rounds=1)
    assert all(1 < rate < 1e6 for rate in rates)
    assert 0.02 < rates[0] / rates[1] < 50


def test_a_loop_that_ended_early_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import benchmark

    watch = benchmark.Stopwatch()
    for _ in range(benchmark.WARMUP_STEPS + benchmark.STEPS - 1):
        watch.end_step(8)
    with pytest.raises(RuntimeError, match="22 of 23 steps"):
        watch.samples_per_second()
    watch.end_step(8)
    assert watch.samples_per_second() > 0


def test_a_step_that_opens_an_epoch_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import benchmark

    clock = iter(range(1000))
    monkeypatch.setattr(benchmark, "now", lambda: float(next(clock)))
    watch = benchmark.Stopwatch()
    for step in range(benchmark.WARMUP_STEPS + benchmark.STEPS):
        if step == 10:
            watch.start_epoch()
        watch.end_step(8)
    assert (watch.rows, watch.seconds) == ((benchmark.STEPS - 1) * 8, benchmark.STEPS - 1)
    assert watch.samples_per_second() == 8.0
