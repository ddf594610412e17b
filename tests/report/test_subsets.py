"""The heat map of what a task scores with some modalities alone."""

import json
from pathlib import Path

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
    assert table.rows[3][1][1] == pytest.approx(SubsetCell(0.4, 0.4, 0.0))  # nobody knows which way is up


def test_nothing_to_show() -> None:
    assert subset_tables({"label/accuracy": {"value": 0.9, "chance": 0.5}}) == []
    assert is_of_subset("label/image_only/accuracy") and not is_of_subset("label/accuracy")


def test_a_task_at_chance_has_no_way_to_go() -> None:
    half = {"value": 0.5, "chance": 0.5}
    test = {"a/x": half, "a/image_only/x": half, "a/text_only/x": half}
    assert [cells[0].share for _, cells in subset_tables(test)[0].rows] == [1.0, 1.0, 1.0]


def test_the_page_has_it(tmp_path: Path) -> None:

    (tmp_path / "summary.json").write_text(json.dumps({"status": "done", "mode": "test", "test": TEST}))
    page = write_report(tmp_path, exhibits=[], picture=lambda id: None, text=lambda id: None).read_text()
    assert 'id="subsets"' in page and "−0.200" in page and "+0.050" in page
    assert "image_only" not in page.partition("<main>")[2]
