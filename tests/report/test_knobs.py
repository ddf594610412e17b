"""What the knobs of a sweep did, against scipy."""

import itertools
import math
import random
import statistics

import pytest
from scipy import stats

from mmtrain.report.knobs import NORMAL, STUDENT_T, UNSET, Run, importances, knobs_of, repeated


def grid(*seeds: int) -> list[Run]:
    """Twelve settings, some seeds each; lr matters, fusion a little, depth not."""
    draw = random.Random(0)
    combinations = itertools.product(("0.1", "0.01", "0.001"), ("sum", "concat"), ("2", "4"), seeds)
    return [
        Run(
            str(number),
            [f"lr={lr}", f"fusion={fusion}", f"depth={depth}", f"seed={seed}"],
            -math.log10(float(lr)) + 0.3 * (fusion == "sum") + draw.gauss(0, 0.1),
        )
        for number, (lr, fusion, depth, seed) in enumerate(combinations)
    ]


def test_points_of_students_t() -> None:
    expected = stats.t.ppf(0.975, range(1, len(STUDENT_T) + 1))
    assert pytest.approx(expected, abs=6e-4) == STUDENT_T
    assert pytest.approx(stats.norm.ppf(0.975), abs=6e-4) == NORMAL


def test_knobs_are_what_differs() -> None:
    runs = [
        Run("0", ["a=1", "b=x"], 0.0),
        Run("1", ["a=1", "~callbacks.ema"], 1.0),
        Run("2", ["a=1", "+c=3", "b=x"], 1.0),
    ]
    assert knobs_of(runs) == ["b", "callbacks.ema", "c"]
    assert [run.setting("b") for run in runs] == ["x", UNSET, "x"]
    assert runs[1].setting("callbacks.ema") == "removed" and runs[2].setting("c") == "3"


def test_importance_is_epsilon_squared() -> None:
    """(F - 1) / (F + (N - k) / (k - 1)) of a one-way analysis of variance."""
    runs = grid(0, 1)
    results = {i.knob: i for i in importances(runs)}
    assert [i.knob for i in importances(runs)][:2] == ["lr", "fusion"]
    for knob in ("lr", "fusion", "depth", "seed"):
        groups = [[r.value for r in runs if r.setting(knob) == setting] for setting in {r.setting(knob) for r in runs}]
        ratio = stats.f_oneway(*groups).statistic
        between, within = len(groups) - 1, len(runs) - len(groups)
        assert results[knob].share == pytest.approx(max(0.0, (ratio - 1) / (ratio + within / between)))
    assert list(results["lr"].means) == ["0.001", "0.01", "0.1"], "numbers in their order"
    assert results["fusion"].means["sum"] == pytest.approx(
        statistics.fmean(r.value for r in runs if r.setting("fusion") == "sum" and r.value is not None)
    )


def test_settings_that_were_tried_once_have_no_importance() -> None:
    runs = [Run(str(i), [f"fusion={name}"], i / 10) for i, name in enumerate("abc")]
    assert [i.share for i in importances(runs)] == [None]
    assert importances(runs[:1]) == []


def test_many_numbers_are_taken_in_quarters() -> None:
    runs = [Run(str(i), [f"lr={10 ** -(i / 10):.3g}"], float(i)) for i in range(20)]
    (result,) = importances(runs)
    assert len(result.means) == 4 and result.share is not None and result.share > 0.8
    assert next(iter(result.means)) == "0.0126 to 0.0316"


def test_runs_without_a_value_are_passed_over() -> None:
    runs = [*grid(0, 1), Run("99", ["lr=5", "seed=0"], None)]
    assert importances(runs) == importances(runs[:-1])
    assert repeated(runs, larger_is_better=True) == repeated(runs[:-1], larger_is_better=True)


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_seeds_are_taken_together(larger_is_better: bool) -> None:
    """Two groups: what Student's test of scipy says at 5%."""
    draw = random.Random(1)
    for distance in (0.0, 0.1, 0.2, 0.4):
        runs = [
            Run(f"{name}{seed}", [f"fusion={name}", f"seed={seed}"], draw.gauss(distance * (name == "a"), 0.1))
            for name in "ab"
            for seed in range(4)
        ]
        best, other = repeated(runs, larger_is_better=larger_is_better)
        assert (best.mean > other.mean) == larger_is_better
        values = {one: [r.value for r in runs if r.name in one.runs] for one in (best, other)}
        for one in (best, other):
            assert one.mean == pytest.approx(statistics.fmean(values[one]))
            assert one.deviation == pytest.approx(statistics.stdev(values[one]))
        assert best.margin is None and best.behind == 0 and other.margin is not None
        assert other.behind == pytest.approx(abs(best.mean - other.mean))
        assert (other.behind > other.margin) == (stats.ttest_ind(*values.values()).pvalue < 0.05)


def test_a_group_of_one_run_borrows_the_noise_of_the_others() -> None:
    runs = [
        *(Run(f"a{s}", ["fusion=a", f"seed={s}"], v) for s, v in enumerate((0.5, 0.6, 0.7))),
        Run("b0", ["fusion=b", "seed=0"], 0.2),
    ]
    best, other = repeated(runs, larger_is_better=True)
    assert best.overrides == ("fusion=a",) and other.deviation is None
    assert other.margin == pytest.approx(stats.t.ppf(0.975, 2) * 0.1 * math.sqrt(1 / 3 + 1), rel=1e-3)


def test_without_seeds_there_is_nothing_to_take_together() -> None:
    assert repeated([Run(str(i), [f"fusion={n}"], 0.5) for i, n in enumerate("abc")], larger_is_better=True) == []
    assert repeated([Run(str(i), ["fusion=a"], 0.5) for i in range(3)], larger_is_better=True) == []
    assert repeated([Run(str(i), [f"seed={i}", f"a={i}"], 0.5) for i in range(3)], larger_is_better=True) == []
    assert repeated([], larger_is_better=True) == []
