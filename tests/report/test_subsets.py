"""The heat map of what a task scores with some modalities alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmtrain.report.report import write_report
from mmtrain.report.subsets import SubsetCell, is_of_subset, subset_tables

TEST = {
    "label/accuracy": {"value": 0.9, "chance": 0.5},
    "label/f1": {"value": 0.8, "chance": None},
    "label/image_only/accuracy": {"value": 0.7, "chance": 0.5},
    "label/image_only/f1": {"value": 0.4, "chance": None},
    "label/text_only/accuracy": {"value": 0.4, "chance": 0.5},
    "label/text_only/f1": {"value": 0.1, "chance": None},
    "label/image+text_only/accuracy": {"value": 0.95, "chance": 0.5},
    "label/image+text_only/f1": {"value": 0.8, "chance": None},
    "label/audio_only/accuracy": {"value": 0.6, "chance": 0.5},
    "label/audio_only/f1": {"value": 0.2, "chance": None},
    "loss": {"value": 1.0, "chance": None},
}


def test_rows_metrics_drops_and_shares() -> None:
    (table,) = subset_tables(TEST)
    assert (table.task, table.modalities, table.metrics) == ("label", ["audio", "image", "text"], ["accuracy", "f1"])
    assert [there for there, _ in table.rows] == [
        [True, True, True],
        [False, True, True],
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    accuracy = [cells[0] for _, cells in table.rows]
    assert accuracy[0] == SubsetCell(0.9, 0.0, 1.0)
    assert accuracy[1] == pytest.approx(SubsetCell(0.95, -0.05, 1.0))  # better than all of them is no darker
    assert accuracy[3] == pytest.approx(SubsetCell(0.7, 0.2, 0.5))
    assert accuracy[4] == pytest.approx(SubsetCell(0.4, 0.5, 0.0))
    assert table.rows[3][1][1] == pytest.approx(SubsetCell(0.4, 0.4, 0.0))  # the direction is unknown


def test_nothing_to_show() -> None:
    assert subset_tables({"label/accuracy": {"value": 0.9, "chance": 0.5}}) == []
    assert is_of_subset("label/image_only/accuracy") and not is_of_subset("label/accuracy")


def shares(whole: dict[str, Any], alone: dict[str, Any], metric: str = "accuracy") -> list[float]:
    """Of all modalities together and of one alone."""
    (table,) = subset_tables({f"a/{metric}": whole, f"a/image_only/{metric}": alone, f"a/text_only/{metric}": alone})
    return [cells[0].share for _, cells in table.rows[:2] if cells[0] is not None]


def test_a_task_at_chance_or_below_has_no_way_to_go() -> None:
    half = {"value": 0.5, "chance": 0.5}
    assert shares(half, half) == [0.0, 0.0]
    assert shares({"value": 0.174, "chance": 0.217}, {"value": 0.3, "chance": 0.25}) == [0.0, 0.0]


@pytest.mark.parametrize("metric", ["mae", "rmse", "loss", "image_to_text_median_rank"])
def test_where_smaller_is_better_the_way_goes_down_from_chance(metric: str) -> None:
    full = {"value": 9.0, "chance": 15.0}
    for value, share in ((19.96, 0.0), (15.72, 0.0), (15.0, 0.0), (12.0, 0.5), (9.0, 1.0), (8.0, 1.0)):
        assert shares(full, {"value": value, "chance": 15.0}, metric) == [1.0, pytest.approx(share)]
    assert shares({"value": 16.0, "chance": 15.0}, {"value": 15.5, "chance": 15.0}, metric) == [0.0, 0.0]


@pytest.mark.parametrize("metric", ["neg_rmse", "r2", "image_to_text_R@5", "of_my_own"])
def test_where_larger_is_better_the_way_goes_up_from_chance(metric: str) -> None:
    full = {"value": -9.0, "chance": -15.0}
    for value, share in ((-19.96, 0.0), (-15.0, 0.0), (-12.0, 0.5), (-9.0, 1.0), (-8.0, 1.0)):
        assert shares(full, {"value": value, "chance": -15.0}, metric) == [1.0, pytest.approx(share)]


def test_chance_is_that_of_the_subset() -> None:
    full = {"value": 0.8, "chance": 0.2}
    assert shares(full, {"value": 0.4, "chance": 0.4}) == [1.0, 0.0]
    assert shares(full, {"value": 0.6, "chance": 0.4}) == [1.0, pytest.approx(0.5)]
    assert shares(full, {"value": 0.5, "chance": None}) == [1.0, pytest.approx(0.5)]


def test_a_subset_is_compared_on_its_own_rows() -> None:
    full = {"value": 0.8, "chance": 0.2, "rows": 23}
    fewer = {"value": 0.5, "chance": 0.2, "rows": 19, "all_modalities": 0.6}
    test = {"a/accuracy": full, "a/image_only/accuracy": fewer, "a/text_only/accuracy": full}
    (table,) = subset_tables(test)
    assert table.num_rows == [23, 19, 23] and table.is_counted
    assert table.rows[1][1][0] == pytest.approx(SubsetCell(0.5, 0.1, 0.75))
    (table,) = subset_tables(test | {"a/image_only/accuracy": fewer | {"all_modalities": None}})
    assert table.rows[1][1][0] == SubsetCell(0.5, None, 0.0)  # nothing is known of the same rows
    (table,) = subset_tables(test | {"a/image_only/accuracy": fewer | {"all_modalities": None, "rows": 23}})
    assert table.rows[1][1][0] == pytest.approx(SubsetCell(0.5, 0.3, 0.5))


def test_a_metric_that_a_subset_does_not_have_is_blank(tmp_path: Path) -> None:
    test = TEST | {
        "label/auroc": {"value": 0.9, "chance": 0.5},
        "label/image_only/auroc": {"value": 0.7, "chance": 0.5},
    }
    (table,) = subset_tables(test)
    assert table.metrics[-1] == "auroc" and [cells[-1] is None for _, cells in table.rows] == [
        *(False, True, True, False, True)
    ]
    (tmp_path / "summary.json").write_text(json.dumps({"status": "done", "mode": "test", "test": test}))
    write_report(tmp_path, exhibits=[], picture=lambda id: None, text=lambda id: None)


def test_the_page_has_it(tmp_path: Path) -> None:

    (tmp_path / "summary.json").write_text(json.dumps({"status": "done", "mode": "test", "test": TEST}))
    page = write_report(tmp_path, exhibits=[], picture=lambda id: None, text=lambda id: None).read_text()
    assert 'id="subsets"' in page and "−0.200" in page and "+0.050" in page
    assert "rows</th>" not in page.partition('id="subsets"')[2].partition("</section>")[0]
    counted = {name: figure | {"rows": 21, "all_modalities": 0.8} for name, figure in TEST.items()}
    not_judged = [{"split": "test", "task": "label", "rows": 3, "of": 24}]
    (tmp_path / "summary.json").write_text(json.dumps({"status": "done", "test": counted, "not_judged": not_judged}))
    page = write_report(tmp_path, exhibits=[], picture=lambda id: None, text=lambda id: None).read_text()
    assert '<td class="side">21</td>' in page
    assert "3 of 24 rows have none of the inputs that label reads and were not evaluated" in page
    assert "image_only" not in page.partition("<main>")[2]
