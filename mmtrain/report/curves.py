"""Training curves from metrics.csv, grouped by what is compared, each group drawn as an inline SVG.

matplotlib draws without pyplot, which needs no display and no global figure. Text and axes are drawn in one sentinel
colour that is replaced by `currentColor`, so the same drawing fits a light and a dark page.
"""

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Points = dict[int, float]

SPLITS = ("train", "val")
VAL_OF_AVERAGE = "val (average of weights)"
OVERALL = "All tasks together"
CARRIES = "Single modalities"
RUNNING = "Training process"
TITLES = {"lr": "learning rate", "grad_norm": "gradient norm"}
OF_MODALITIES = {
    "grad_norm": "gradient norm of each encoder",
    "attention": "attention weights",
    "modality_balance": "modality balance",
}
BALANCES = "Balancing of tasks"
OF_TASKS = {
    "balance": "weight per task",
    "gradient_norm": "gradient norm per task",
    "cosine": "cosine similarity of the gradients of two tasks",
}
MAX_POINTS = 400
INCHES = (4.6, 2.7)  # size of a drawing
# Space for ticks and labels in inches. A layout engine would measure every text twice and take half of the time.
LEFT, RIGHT, BOTTOM, TOP, LEGEND_ROW = 0.6, 0.08, 0.42, 0.1, 0.175
LEGEND_COLUMNS = 3
INK = "#010203"
# Legible on white and on near-black. Each colour has its own dash pattern for readers who cannot distinguish colours.
STROKES = [
    ("#3f7fd0", "-"),
    ("#d97a2b", "--"),
    ("#2f9e6e", "-."),
    ("#b05fc4", ":"),
    ("#c94f5d", (0, (6, 1, 1, 1, 1, 1))),
]
SPIKE = "#c94f5d"
# Any as key: newer stubs of matplotlib have every name as a literal, older ones str.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, uses the font of the page and is searchable
    "svg.hashsalt": "report",  # the same values give the same page
    "text.parse_math": False,  # the name of a metric may contain dollar signs
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.labelcolor": INK,
    "legend.frameon": False,
    "axes.formatter.limits": (-3, 7),
    "axes.formatter.use_mathtext": False,
}


@dataclass
class Panel:
    """Curves that are compared on one pair of axes.

    Attributes:
        group: its heading, for example the name of a task.
        title: label of the y axis.
        curves: by label, the value at each step; the label is "" if the title is sufficient.
    """

    group: str
    title: str
    curves: dict[str, Points] = field(default_factory=dict)

    @property
    def num_not_finite(self) -> int:
        """Number of logged values that are NaN or infinite."""
        return sum(not math.isfinite(v) for points in self.curves.values() for v in points.values())

    @property
    def spikes(self) -> Points:
        """Steps at which a training loss jumped, with its value."""
        points = self.curves.get("train", {}) if self.title == "loss" else {}
        steps = list(points)
        return {steps[i]: points[steps[i]] for i in spikes(np.array(list(points.values()), dtype=float)).nonzero()[0]}

    @property
    def num_spikes(self) -> int:
        """Number of spikes."""
        return len(self.spikes)


def read_metrics(path: Path) -> dict[str, Points]:
    """Every logged name with its value at each step; empty if there is no file.

    If a resumed run logged a step again, its last value is used. A cell without a number is skipped, such as the
    incomplete last line of a killed run.
    """
    metrics: dict[str, Points] = defaultdict(dict)
    if not path.exists():
        return metrics
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(line.replace("\0", "") for line in file):
            step = _number(row.pop("step", None))
            if step is None or not math.isfinite(step):
                continue
            for name, cell in row.items():
                value = _number(cell)
                if value is not None:
                    metrics[name][int(step)] = value
    return {name: dict(sorted(points.items())) for name, points in metrics.items() if name and name != "epoch"}


def _number(cell: object) -> float | None:
    try:
        return float(cell) if isinstance(cell, str) else None
    except ValueError:
        return None


def panels(metrics: Mapping[str, Points], *, averaged: bool = False) -> list[Panel]:
    """The panels of a page in reading order: all tasks, each task, training process. Test metrics have no curves.

    Args:
        metrics: by name, the value at each step.
        averaged: whether validation uses the moving average of the weights, which is noted next to training curves.
    """
    results: dict[tuple[str, str], Panel] = {}
    for name, points in metrics.items():
        if name.startswith("test/") or (name == "zero_steps" and not any(points.values())):
            continue
        group, title, label = _place(name)
        results.setdefault((group, title), Panel(group, title)).curves[label] = points
    for panel in results.values() if averaged else ():
        if {"train", "val"} <= panel.curves.keys():
            panel.curves = {VAL_OF_AVERAGE if k == "val" else k: points for k, points in panel.curves.items()}
    rank = {OVERALL: 0, BALANCES: 2, CARRIES: 3, RUNNING: 4}
    groups = list(dict.fromkeys(group for group, _ in results))
    return sorted(results.values(), key=lambda p: (rank.get(p.group, 1), groups.index(p.group), p.title != "loss"))


def _place(name: str) -> tuple[str, str, str]:
    """Group, title and label of a logged name, which determine the panel of its curve."""
    first, _, rest = name.partition("/")
    if first in OF_MODALITIES and rest:
        return CARRIES, OF_MODALITIES[first], rest
    if first in OF_TASKS and rest:
        return BALANCES, OF_TASKS[first], rest
    if name == "zero_steps":
        return BALANCES, "steps so far in which the weight of every task was 0", ""
    if first not in SPLITS:
        if first == "time" and rest:
            return RUNNING, _words(rest), ""
        return RUNNING, TITLES.get(first, _words(first)), rest
    task, _, metric = rest.rpartition("/")
    alone = re.fullmatch(r"(.+)/([^/]+)_only", task)
    if alone is not None:
        return CARRIES, f"{alone[1]}: {_words(metric)} with a single modality", alone[2]
    recall = re.fullmatch(r"(?:(?P<direction>.+)_)?(?P<at>R@\d+)", metric)
    if recall is None:
        return task or OVERALL, _words(metric), first
    title = f"{_words(recall['direction'])}: R@k" if recall["direction"] else "R@k"
    return task or OVERALL, title, recall["at"] if first == "val" else f"{first} {recall['at']}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def draw(panel: Panel, *, index: int, best_step: int | None) -> Markup:
    """Draw one panel as an inline SVG.

    Args:
        panel: what to draw.
        index: index of the panel in the page, which makes ids of drawings unique.
        best_step: step of the best checkpoint, which is marked by a dotted line in panels with validation metrics.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=INCHES)
        axes = figure.add_axes(_room(num_labels=sum(map(bool, panel.curves))))
        for (label, points), (color, dash) in zip(panel.curves.items(), _strokes(panel), strict=True):
            _plot(axes, points, label=label, color=color, dash=dash)
        if best_step is not None and any(_is_validation(label) for label in panel.curves):
            axes.axvline(best_step, color=INK, linewidth=1, linestyle=(0, (1, 2)), alpha=0.7)
        if jumps := panel.spikes:
            axes.plot(list(jumps), list(jumps.values()), "v", color=SPIKE, markersize=5)
        _rule(axes)
        if any(panel.curves):
            figure.legend(loc="upper left", ncols=LEGEND_COLUMNS, borderpad=0, borderaxespad=0.2, handlelength=2.4)
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    return inline(buffer.getvalue(), prefix=f"curve{index}-", label=_described(panel))


def _room(*, num_labels: int) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of the axes, as fractions of the drawing, below a legend with these labels."""
    width, height = INCHES
    top = TOP + LEGEND_ROW * -(-num_labels // LEGEND_COLUMNS)
    return LEFT / width, BOTTOM / height, (width - LEFT - RIGHT) / width, (height - BOTTOM - top) / height


def _is_validation(label: str) -> bool:
    return label in ("val", VAL_OF_AVERAGE) or label.startswith("R@")


def _strokes(panel: Panel) -> list[tuple[str, object]]:
    """A colour and a dash pattern for each curve. Validation has the same in every panel with both splits."""
    if set(panel.curves) <= set(SPLITS):
        return [STROKES[SPLITS.index(label)] for label in panel.curves]
    return [STROKES[i % len(STROKES)] for i in range(len(panel.curves))]


def _plot(axes: Axes, points: Points, *, label: str, color: str, dash: object) -> None:
    values = np.array(list(points.values()), dtype=float)
    steps, values = _thinned(np.array(list(points), dtype=float), np.where(np.isfinite(values), values, np.nan))
    lone = _lone(values)
    marker = "o" if lone else ""
    axes.plot(
        steps,
        values,
        linestyle=dash,
        linewidth=1.6,
        color=color,
        label=label,
        marker=marker,
        markersize=4,
        markevery=lone,
    )


def _rule(axes: Axes) -> None:
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter("{x:g}")  # no common factor above the axis, where there is no space
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    axes.tick_params(length=0)


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MAX_POINTS points: means over neighbouring points, which keeps the page of a long run small."""
    if len(steps) <= MAX_POINTS:
        return steps, values
    runs = np.array_split(np.arange(len(steps)), MAX_POINTS)
    return np.array([steps[run].mean() for run in runs]), np.array([values[run].mean() for run in runs])


def _lone(values: np.ndarray) -> list[int]:
    """Points without a neighbour, which need a marker to be visible."""
    is_finite = np.concatenate([[False], np.isfinite(values), [False]])
    return np.flatnonzero(is_finite[1:-1] & ~is_finite[:-2] & ~is_finite[2:]).tolist()


def _described(panel: Panel) -> str:
    """The panel as text for readers who cannot see it: the last value of each curve."""
    ends = [
        f"{label or panel.title} {points[max(points)]:.3g} at step {max(points)}"
        for label, points in panel.curves.items()
    ]
    jumps = list(panel.spikes)
    message = f"; {_counted(jumps)} at step {', '.join(map(str, jumps[:5]))}" if jumps else ""
    return f"{panel.group}, {panel.title} over steps; last: {', '.join(ends)}{message}"


def _counted(jumps: list[int]) -> str:
    return "1 spike" if len(jumps) == 1 else f"{len(jumps)} spikes"


def inline(svg: str, *, prefix: str, label: str) -> Markup:
    """Prepare an SVG file for a page: no prologue, the font of the page, unique ids."""
    body = svg[svg.index("<svg ") :]
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body)
    body = re.sub(r" font-family: [^;]*;", "", body)
    body = re.sub(r'( id="|href="#|url\(#)', rf"\1{prefix}", body)
    body = body.replace(INK, "currentColor")
    return Markup(body.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1))


WINDOW = 30  # number of earlier logged values that define the usual level
DEVIATIONS = 8.0
LEAST = 0.1  # fraction of the usual value; smaller jumps are not spikes


def spikes(values: np.ndarray) -> np.ndarray:
    """(N,) -> (N,), bool: above the median of earlier values by eight deviations, and by a tenth.

    The deviation is 1.4826 times the median absolute deviation, which equals the standard deviation of normal noise
    and is robust against spikes in the window. Values that are not finite are neither spikes nor part of the window.

    >>> losses = np.array([1.0, 1.02] * 15 + [3.0, 1.01, 0.98])
    >>> spikes(losses).nonzero()[0].tolist()
    [30]
    """
    result = np.zeros(len(values), dtype=bool)
    if len(values) <= WINDOW:
        return result
    finite = np.where(np.isfinite(values), values, np.nan)
    before = np.lib.stride_tricks.sliding_window_view(finite[:-1], WINDOW)
    enough = np.isfinite(before).sum(axis=1) >= WINDOW // 2
    before = np.where(enough[:, None], before, 0.0)
    median = np.nanmedian(before, axis=1)
    deviation = 1.4826 * np.nanmedian(np.abs(before - median[:, None]), axis=1)
    limit = median + np.maximum(DEVIATIONS * deviation, LEAST * np.abs(median))
    now = finite[WINDOW:]
    result[WINDOW:] = enough & np.isfinite(now) & (np.where(np.isfinite(now), now, 0.0) > limit)
    return result
