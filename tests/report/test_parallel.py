"""Parallel coordinates: every run is a line, the best one the thickest, and the axes say what was set."""

import re

import pytest

from mmtrain.report.knobs import Run
from mmtrain.report.parallel import MAX_KNOBS, _places, parallel

RUNS = [
    Run("0", ["optimizer.lr=0.1", "fusion=sum"], 0.5),
    Run("1", ["optimizer.lr=0.001", "fusion=concat"], 0.75),
    Run("2", ["optimizer.lr=0.01", "fusion=<b>"], 0.25),
    Run("3", ["optimizer.lr=0.01", "fusion=sum"], None),
]


def lines(svg: str) -> list[tuple[str, float]]:
    """Colour and width of each curve; axes have the page's colour."""
    results = re.findall(r"stroke: (#[0-9a-f]{6});[^\"]*stroke-width: ([\d.]+)", svg)
    return [(color, float(width)) for color, width in results]


@pytest.mark.parametrize(("larger", "widest"), [(True, "#d97a2b"), (False, "#d97a2b")])
def test_a_line_for_each_run_that_ended(larger: bool, widest: str) -> None:
    svg = parallel(RUNS, ["optimizer.lr", "fusion"], "val/x", larger_is_better=larger)
    drawn = lines(svg)
    assert len(drawn) == 3
    assert max(drawn, key=lambda line: line[1]) == (widest, 2.2) and sum(width == 2.2 for _, width in drawn) == 1


def test_axes_name_knobs_settings_and_the_metric() -> None:
    svg = parallel(RUNS, ["optimizer.lr", "fusion"], "val/accuracy", larger_is_better=True)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    for word in ("optimizer.lr", "fusion", "val/accuracy", "0.1", "0.01", "0.001", "sum", "concat", "0.250", "0.750"):
        assert word in texts, texts
    assert "&lt;b&gt;" in texts and "<b>" not in svg
    assert 'aria-label="3 runs by optimizer.lr, fusion; val/accuracy from 0.250 to 0.750"' in svg


def test_numbers_far_apart_are_drawn_by_their_logarithm() -> None:
    places, marks = _places(["1", "0.1", "0.001"])
    assert places == pytest.approx([1.0, 2 / 3, 0.0])
    assert [name for _, name in marks] == ["0.001", "0.1", "1"]
    assert [height for height, _ in marks] == pytest.approx([0.0, 2 / 3, 1.0])
    _, marks = _places(["0", "1", "2", "50", "99", "100"])
    assert [name for _, name in marks] == ["0", "50", "100"], "not on one another"
    places, _ = _places(["1", "2", "5"])
    assert places == [0.0, 0.25, 1.0]


def test_runs_that_are_all_equal_can_be_drawn() -> None:
    runs = [Run("0", ["a=1"], 0.5), Run("1", ["a=2"], 0.5)]
    assert len(lines(parallel(runs, ["a"], "m", larger_is_better=True))) == 2


def test_the_least_important_of_many_knobs_are_left_out() -> None:
    names = [f"k{i}" for i in range(MAX_KNOBS + 3)]
    runs = [Run(str(r), [f"{n}={r}" for n in names], float(r)) for r in range(3)]
    svg = parallel(runs, names, "m", larger_is_better=True)
    assert f">{names[MAX_KNOBS - 1]}<" in svg and f">{names[MAX_KNOBS]}<" not in svg
