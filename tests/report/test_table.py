"""Figures in words, and the table that ends a run in the terminal."""

import io
import math

import pytest
from rich.console import Console

from mmtrain.report.table import against_chance, digits, metrics_table


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "-"),
        (0.0, "0"),
        (1, "1"),
        (0.41234, "0.412"),
        (-0.25, "-0.250"),
        (0.00123, "0.0012"),
        (3e-5, "3e-05"),
        (7.0, "7.00"),
        (410.24, "410.2"),
        (12345.6, "12,346"),
        (2e12, "2e+12"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_digits(value: float | None, message: str) -> None:
    assert digits(value) == message


@pytest.mark.parametrize(
    ("metric", "value", "chance", "message"),
    [
        ("contrastive/text_to_image_R@10", 0.4, 0.01, "40.00 ×"),
        ("contrastive/text_to_image_R@10", 0.4, 0.0, "-"),
        ("classification/accuracy", 0.9, 0.6, "+0.300"),
        ("classification/accuracy", 0.3, 0.6, "-0.300"),
        ("classification/accuracy", 0.6 + 2e-8, 0.6, "0"),
        ("classification/accuracy", 0.9, None, "-"),
        ("classification/accuracy", math.nan, 0.6, "-"),
    ],
)
def test_a_recall_is_so_many_times_chance_and_any_other_metric_so_far_from_it(
    metric: str, value: float, chance: float | None, message: str
) -> None:
    assert against_chance(metric, value, chance) == message


def test_the_table_for_the_terminal_says_metric_value_and_chance() -> None:
    table = metrics_table(
        {
            "contrastive/text_to_image_R@10": {"value": 0.41, "chance": 0.013},
            "fine[red]/accuracy": {"value": 0.5, "chance": None},
        }
    )
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(table)
    lines = capture.get().splitlines()
    assert any(all(word in line for word in ("metric", "value", "chance")) for line in lines)
    assert any(all(word in line for word in ("contrastive/text_to_image_R@10", "0.410", "0.013")) for line in lines)
    assert any("fine[red]/accuracy" in line for line in lines)


@pytest.mark.parametrize("count", [20, 21])
def test_many_metrics_of_subsets_are_left_to_the_report(count: int) -> None:
    figure = {"value": 0.5, "chance": None}
    subsets = {f"classification/{number}+text_only/accuracy": figure for number in range(count)}
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(metrics_table({"classification/accuracy": figure, **subsets}))
    printed = " ".join(capture.get().split())
    assert printed.count("_only/accuracy") == (20 if count == 20 else 0)
    assert ("and 21 metrics of subsets of the modalities: see the report" in printed) == (count == 21)
    assert "classification/accuracy" in printed
