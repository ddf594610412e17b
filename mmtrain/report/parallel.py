"""Parallel coordinates: every run is a line through its value of each knob, and its metric."""

import io
import math
from collections.abc import Sequence
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mmtrain.report.curves import INK, STYLE, inline
from mmtrain.report.knobs import Run, number
from mmtrain.report.table import digits

MAX_KNOBS = 8
MAX_TICKS = 8  # names on one axis
HEIGHT, INCHES_A_KNOB = 3.4, 1.45
GAP = 0.06  # between marks, as a fraction of an axis
SPREAD = 30.0  # numbers with a larger ratio are drawn on a logarithmic axis
SHADES = LinearSegmentedColormap.from_list("runs", ["#8a94a0", "#3f7fd0", "#d97a2b"])  # poor, middling, good


def parallel(
    runs: Sequence[Run], knobs: Sequence[str], metric: str, *, larger_is_better: bool, best: Sequence[str] = ()
) -> Markup:
    """Draw an inline SVG.

    Args:
        runs: runs without a value are omitted.
        knobs: the axes; only the first MAX_KNOBS are drawn.
        metric: name of the last axis.
        larger_is_better: determines which runs have the colour of good runs, and are drawn on top.
        best: names of the runs with thick lines; () for the run with the best value.
    """
    ended = [run for run in runs if run.value is not None]
    values = [run.value for run in ended if run.value is not None]
    low, high = min(values), max(values)
    shown = list(knobs[:MAX_KNOBS])
    columns = [_places([run.setting(knob) for run in ended]) for knob in shown]
    ranks = [(v - low) / (high - low) if high > low else 0.5 for v in values]
    heights = [*(places for places, _ in columns), ranks]
    ticks = [*(marks for _, marks in columns), [(0.0, digits(low)), (1.0, digits(high))] if high > low else []]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(INCHES_A_KNOB * (len(shown) + 1.2), HEIGHT))
        axes = figure.add_axes((0.09, 0.09, 0.8, 0.76))
        goodness = ranks if larger_is_better else [1.0 - rank for rank in ranks]
        for place in sorted(range(len(ended)), key=lambda i: goodness[i]):
            is_best = ended[place].name in best if best else goodness[place] == max(goodness)
            _line(axes, [column[place] for column in heights], goodness[place], best=is_best)
        for place, (name, marks) in enumerate(zip([*shown, metric], ticks, strict=True)):
            _axis(axes, place, name, marks)
        axes.set_xlim(-0.02, len(shown) + 0.02)
        axes.set_ylim(-0.04, 1.04)
        axes.set_axis_off()
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    message = f"{len(ended)} runs by {', '.join(shown)}; {metric} from {digits(low)} to {digits(high)}"
    return inline(buffer.getvalue(), prefix="parallel-", label=message)


def _line(axes: Axes, heights: Sequence[float], goodness: float, *, best: bool) -> None:
    """A smooth line between the axes, so that lines with a common point can be distinguished."""
    x = np.linspace(0.0, 1.0, 24)
    ease = x * x * (3.0 - 2.0 * x)
    xs = np.concatenate([x + i for i in range(len(heights) - 1)])
    ys = np.concatenate([a + (b - a) * ease for a, b in pairwise(heights)])
    axes.plot(xs, ys, color=SHADES(goodness), linewidth=2.2 if best else 1.1, alpha=1.0 if best else 0.65)


def _axis(axes: Axes, place: int, name: str, marks: Sequence[tuple[float, str]]) -> None:
    axes.plot([place, place], [0.0, 1.0], color=INK, linewidth=0.9)
    end = max(name.rfind("."), name.rfind("/")) + 1 if len(name) > 14 else 0  # the last word is below
    short = f"{name[:end]}\n{name[end:]}" if end else name
    axes.text(place, 1.08, short, ha="center", va="bottom", color=INK, fontsize=8.5)
    for height, text in marks:
        axes.text(
            place + 0.03, height, text if len(text) <= 18 else f"{text[:17]}…", ha="left", va="center", fontsize=7.5
        )


def _places(settings: Sequence[str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Positions of settings on an axis from 0 to 1, and its marks: numbers to scale, names in equal distances."""
    names = list(dict.fromkeys(settings))
    numbers = [number(setting) for setting in settings]
    known = [n for n in numbers if n is not None]
    if len(known) == len(settings):
        low, high = min(known), max(known)
        logarithmic = low > 0 and high / low > SPREAD
        scaled = [math.log(n) for n in known] if logarithmic else known
        first, last = min(scaled), max(scaled)
        places = [(n - first) / (last - first) if last > first else 0.5 for n in scaled]
        by_name = dict(zip(settings, places, strict=True))
        return places, _apart([(by_name[name], name) for name in names])
    rows = {name: i / max(1, len(names) - 1) if len(names) > 1 else 0.5 for i, name in enumerate(sorted(names))}
    step = max(1, -(-len(rows) // (2 * MAX_TICKS)))
    return [rows[s] for s in settings], [(height, name) for name, height in list(rows.items())[::step]]


def _apart(marks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Marks that do not overlap, always including both ends."""
    first, *others = sorted(marks)
    kept = [first]
    last = others[-1] if others else first
    for mark in others[:-1]:
        if mark[0] - kept[-1][0] >= GAP <= last[0] - mark[0]:
            kept.append(mark)
    return [*kept, *([last] if last[0] > first[0] else [])]
