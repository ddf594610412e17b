"""Metrics as text and tables: the number of digits, and the table of test metrics for the terminal."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from mmtrain.io.console import plain_text

MAX_SUBSETS = 20  # metrics of subsets in the terminal
NOTHING = "-"


def digits(value: float | None) -> str:
    """A value with a readable number of digits, for the terminal and the page.

    >>> [digits(v) for v in (0.41234, 0.00123, 12.3456, 410.24, 1234567, None)]
    ['0.412', '0.0012', '12.35', '410.2', '1,234,567', '-']
    """
    if value is None:
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    size = abs(value)
    if size < 0.01:
        return f"{value:.2g}"
    if size >= 1e9:
        return f"{value:.3g}"
    decimals = 3 if size < 1 else 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:,.{decimals}f}"


def against_chance(metric: str, value: float | None, chance: float | None) -> str:
    """The difference of a metric to chance: a factor for recall at k, a difference for other metrics.

    >>> against_chance("text_to_image_R@10", 0.4, 0.01), against_chance("accuracy", 0.9, 0.6)
    ('40.00 ×', '+0.300')
    """
    if value is None or chance is None or not (math.isfinite(value) and math.isfinite(chance)):
        return NOTHING
    if re.search(r"R@\d+$", metric):
        return NOTHING if chance == 0 else f"{digits(value / chance)} ×"
    # Metrics are float32: without rounding, 0.6 against 0.6 would be +2.4e-08.
    difference = round(value - chance, 4)
    return f"{'+' if difference > 0 else ''}{digits(difference)}"


def short(count: int) -> str:
    """A large number in few characters.

    >>> short(774), short(3_959_465)
    ('774', '3.96 M')
    """
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{digits(count / unit)} {name}"
    return digits(count)


def metrics_table(test: Mapping[str, Mapping[str, Any]]) -> Table:
    """The final table of test metrics in the terminal.

    Many metrics of subsets of the modalities, such as `classification/image+text_only/accuracy`, are left out: the
    report has a table of them.

    Args:
        test: by metric, such as `{"classification/accuracy": {"value": 0.9, "chance": 0.6}}`; chance may be None.
    """
    subsets = [metric for metric in test if "_only/" in metric]
    hidden = set(subsets) if len(subsets) > MAX_SUBSETS else set()
    caption = f"and {len(hidden)} metrics of subsets of the modalities: see the report" if hidden else None
    table = Table(title="test", title_justify="left", caption=caption, caption_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("chance", justify="right")
    for metric, figure in [(metric, figure) for metric, figure in test.items() if metric not in hidden]:
        table.add_row(plain_text(metric), digits(figure["value"]), digits(figure["chance"]))
    return table


def not_evaluated_sentences(not_judged: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences about rows without any input, one for each task and split.

    >>> not_evaluated_sentences([{"split": "test", "task": "race", "rows": 3, "of": 23}])
    ['test: 3 of 23 rows have none of the inputs that race reads and were not evaluated']
    """
    return [
        f"{result['split']}: {result['rows']:,} of {result['of']:,} rows have none of the inputs that {result['task']}"
        " reads and were not evaluated"
        for result in not_judged
    ]
