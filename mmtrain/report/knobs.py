"""Analysis of a sweep: the values of each knob, its importance, and the noise of the seed."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

UNSET = "default"
SEED = "seed"
MOST_VALUES = 6  # of a numeric knob; more values are grouped into quarters of the runs
# 97.5% points of Student's t by degrees of freedom; from 30 on, the normal distribution differs by at most 0.09
STUDENT_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
NORMAL = 1.960


@dataclass(frozen=True)
class Run:
    """A run of a sweep, with what is compared.

    Attributes:
        name: name of its folder.
        overrides: overrides that differ between runs.
        value: value of the metric; None if there is none.
    """

    name: str
    overrides: Sequence[str]
    value: float | None

    def setting(self, knob: str) -> str:
        """The value of a knob in this run."""
        return dict(map(_split, self.overrides)).get(knob, UNSET)


def _split(override: str) -> tuple[str, str]:
    knob, _, value = override.partition("=")
    return (knob.lstrip("+"), value) if not knob.startswith("~") else (knob[1:], "removed")


def knobs_of(runs: Sequence[Run]) -> list[str]:
    """Knobs that differ between runs, in the order of the command line."""
    names = dict.fromkeys(name for run in runs for name, _ in map(_split, run.overrides))
    return [name for name in names if len({run.setting(name) for run in runs}) > 1]


def number(setting: str) -> float | None:
    """A setting as a number; None if it is not a number."""
    try:
        value = float(setting)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Importance:
    """The fraction of the differences between runs that one knob explains.

    Attributes:
        share: fraction of the variance of the metric that the means by setting explain beyond chance (epsilon squared,
            Kelley 1935); None if each setting was tried once.
        means: mean of the metric by setting.
    """

    knob: str
    share: float | None
    means: Mapping[str, float]


def importances(runs: Sequence[Run]) -> list[Importance]:
    """Importance of every knob, in descending order. Interactions of knobs belong to none of them."""
    ended = [run for run in runs if run.value is not None]
    results = [Importance(knob, *_explained(knob, ended)) for knob in knobs_of(ended)]
    return sorted(results, key=lambda i: -1.0 if i.share is None else i.share, reverse=True)


def _explained(knob: str, runs: Sequence[Run]) -> tuple[float | None, dict[str, float]]:
    groups = _by_setting(knob, runs)
    values = [value for group in groups.values() for value in group]
    mean, num_groups = fmean(values), len(groups)
    means = {name: fmean(group) for name, group in groups.items()}
    total = sum((v - mean) ** 2 for v in values)
    if len(values) == num_groups or total == 0.0:
        return (None if len(values) == num_groups else 0.0), means
    within = sum((v - means[name]) ** 2 for name, group in groups.items() for v in group)
    error = within / (len(values) - num_groups)
    return max(0.0, (total - within - (num_groups - 1) * error) / total), means


def _by_setting(knob: str, runs: Sequence[Run]) -> dict[str, list[float]]:
    """Values of the metric by setting; for many numbers, by quarter of the runs."""
    settings = list(dict.fromkeys(run.setting(knob) for run in runs))
    numbers = {s: n for s in settings if (n := number(s)) is not None}
    groups: dict[str, list[float]] = defaultdict(list)
    if len(numbers) == len(settings) > MOST_VALUES:
        ordered = sorted(runs, key=lambda run: numbers[run.setting(knob)])
        quarters = [ordered[len(ordered) * i // 4 : len(ordered) * (i + 1) // 4] for i in range(4)]
        for quarter in quarters:
            name = f"{quarter[0].setting(knob)} to {quarter[-1].setting(knob)}"
            groups[name] += [run.value for run in quarter if run.value is not None]
        return groups
    in_order = sorted(settings, key=lambda s: numbers[s]) if len(numbers) == len(settings) else settings
    for setting in in_order:
        groups[setting] += [r.value for r in runs if r.value is not None and r.setting(knob) == setting]
    return groups


@dataclass(frozen=True)
class Repeated:
    """Runs that differ only by their seed.

    Attributes:
        overrides: without the seed.
        runs: their names.
        mean: mean of the metric.
        deviation: standard deviation of one run, n - 1; None for a single run.
        behind: distance to the best mean, never negative.
        margin: distance that is still noise of the seed, for 19 of 20 pairs without a difference; None if no deviation
            is known.
    """

    overrides: tuple[str, ...]
    runs: tuple[str, ...]
    mean: float
    deviation: float | None
    behind: float
    margin: float | None


def repeated(runs: Sequence[Run], *, larger_is_better: bool) -> list[Repeated]:
    """Group runs that are equal except for the seed, best first; empty if the seed was not swept.

    Noise is the deviation within groups, pooled over all of them: Student's t at 5%, two-sided, for single pairs.
    """
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run.value is not None:
            groups[tuple(o for o in run.overrides if _split(o)[0] != SEED)].append(run)
    if SEED not in knobs_of(runs) or all(len(group) == 1 for group in groups.values()):
        return []
    means = {name: fmean(_values(group)) for name, group in groups.items()}
    squares = {name: sum((v - means[name]) ** 2 for v in _values(group)) for name, group in groups.items()}
    freedom = sum(len(group) - 1 for group in groups.values())
    noise = math.sqrt(sum(squares.values()) / freedom)
    t = STUDENT_T[freedom - 1] if freedom <= len(STUDENT_T) else NORMAL
    ordered = sorted(groups, key=lambda name: means[name], reverse=larger_is_better)
    best = ordered[0]
    return [
        Repeated(
            overrides=name,
            runs=tuple(run.name for run in groups[name]),
            mean=means[name],
            deviation=math.sqrt(squares[name] / (len(groups[name]) - 1)) if len(groups[name]) > 1 else None,
            behind=abs(means[best] - means[name]),
            margin=None if name == best else t * noise * math.sqrt(1 / len(groups[best]) + 1 / len(groups[name])),
        )
        for name in ordered
    ]


def _values(runs: Sequence[Run]) -> Iterator[float]:
    return (run.value for run in runs if run.value is not None)
