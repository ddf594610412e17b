"""The clock of a run. What else is in summary.json is tested with complete runs, in tests/modes/test_run.py."""

from typing import Any

import pytest

from mmtrain.training.callbacks import run_summary


def test_the_time_of_a_run_is_that_of_all_its_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(run_summary.time, "monotonic", lambda: now[0])

    def attempt(step: int, steps: int, before: dict[str, Any] | None) -> dict[str, Any]:
        clock = run_summary.Clock()
        if before is not None:
            clock.add(before)
        now[0] += 5.0  # reading data
        clock.start_training(step)
        now[0] += 2.0 * steps
        return clock.read(step + steps)

    first = attempt(0, 10, None)
    assert first == {"seconds": 25.0, "training_seconds": 20.0, "steps": 10}
    now[0] += 1000.0  # in the queue
    assert attempt(10, 5, first) == {"seconds": 40.0, "training_seconds": 30.0, "steps": 15}
