"""Curves: what is read from metrics.csv, what is drawn together, and that a drawing can be part of a page."""

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from mmtrain.report.curves import MAX_POINTS, WINDOW, Panel, draw, panels, read_metrics, spikes


def test_empty_cells_are_left_out_and_repeated_steps_count_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch,train/loss,val/loss\n20,0,2.0,\n10,0,3.0,\n20,0,,1.5\n20,0,1.0,\n30,0,nan,\n40,0,0.")
    metrics = read_metrics(path)
    assert set(metrics) == {"train/loss", "val/loss"}
    assert metrics["val/loss"] == {20: 1.5}
    assert list(metrics["train/loss"]) == [10, 20, 30, 40]
    assert metrics["train/loss"][20] == 1.0
    assert math.isnan(metrics["train/loss"][30])


def test_a_line_cut_short_and_a_missing_file_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert read_metrics(path) == {}
    path.write_text("step,epoch,train/loss\n10,0,3.0\n20,0,1.2e-\n,,\n3")
    assert read_metrics(path) == {"train/loss": {10: 3.0}}
    path.write_text("")
    assert read_metrics(path) == {}


def test_what_is_compared_shares_axes() -> None:
    names = [
        "lr",
        "train/contrastive/loss",
        "val/contrastive/loss",
        "train/loss",
        "val/loss",
        "val/contrastive/text_to_image_R@1",
        "val/contrastive/text_to_image_R@10",
        "val/contrastive/image_to_text_R@1",
        "val/classification/accuracy",
        "time/samples_per_second",
        "grad_norm",
        "test/classification/accuracy",
    ]
    results = [(p.group, p.title, list(p.curves)) for p in panels({name: {1: 0.5} for name in names})]
    assert results == [
        ("All tasks together", "loss", ["train", "val"]),
        ("contrastive", "loss", ["train", "val"]),
        ("contrastive", "text to image: R@k", ["R@1", "R@10"]),
        ("contrastive", "image to text: R@k", ["R@1"]),
        ("classification", "accuracy", ["val"]),
        ("Training process", "learning rate", [""]),
        ("Training process", "samples per second", [""]),
        ("Training process", "gradient norm", [""]),
    ]


def test_names_that_nobody_foresaw_are_drawn_too() -> None:
    names = ["balance/contrastive", "balance/classification", "time", "lr/encoder", "odd", "val/R@1", "train/a/R@5"]
    result = panels({name: {1: 0.5} for name in names})
    assert sum(len(panel.curves) for panel in result) == len(names)
    assert ["contrastive", "classification"] in [list(panel.curves) for panel in result]


def _path_count(panel: Panel) -> int:
    """How many pieces of line the curves of a drawing have; a gap starts another piece."""
    lines = re.findall(r'<path d="([^"]*)" clip-path[^>]*stroke: #3f7fd0', draw(panel, index=0, best_step=None))
    return sum(line.count("M") for line in lines)


def test_what_is_not_finite_leaves_a_gap_and_is_counted() -> None:
    gap = Panel("g", "loss", {"train": {1: 1.0, 2: 2.0, 3: math.nan, 4: math.inf, 5: 2.0, 6: 1.0}})
    assert gap.num_not_finite == 2
    assert _path_count(gap) == 2
    assert _path_count(Panel("g", "loss", {"train": {1: 1.0, 2: 2.0, 5: 2.0, 6: 1.0}})) == 1


def test_a_lone_point_gets_a_marker() -> None:
    lone = draw(Panel("g", "accuracy", {"val": {100: 0.5}}), index=0, best_step=None)
    line = draw(Panel("g", "accuracy", {"val": {100: 0.5, 200: 0.6}}), index=0, best_step=None)
    marker = re.compile(r'<use href="#[^"]*" x="[\d.]+" y="[\d.]+" style="fill: #d97a2b')
    assert marker.search(lone.replace("xlink:", ""))
    assert not marker.search(line.replace("xlink:", ""))


def test_a_panel_without_a_finite_value_is_drawn_empty() -> None:
    assert "<svg" in draw(Panel("g", "loss", {"train": {1: math.nan, 2: math.inf}}), index=0, best_step=1)


def test_a_drawing_follows_the_page_and_names_nothing_outside() -> None:
    panel = Panel('a "task"', "loss", {"train": {1: 1.0, 2: 2.0}, "$val_<b>": {1: 1.0, 2: 0.5}})
    svg = draw(panel, index=3, best_step=None)
    assert "currentColor" in svg
    assert "http" not in svg
    assert "$val_&lt;b&gt;" in svg
    root = ET.fromstring(str(svg).replace("<svg ", '<svg xmlns:xlink="x" ', 1))
    assert root.get("aria-label") == 'a "task", loss over steps; last: train 2 at step 2, $val_<b> 0.5 at step 2'
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert ids
    assert all(id.startswith("curve3-") for id in ids)
    assert set(re.findall(r"#(curve3-[\w.-]+)", svg)) <= set(ids)


def test_a_long_run_makes_no_heavy_drawing() -> None:
    panel = Panel("g", "loss", {"train": {step: math.sin(step) for step in range(100 * MAX_POINTS)}})
    assert len(draw(panel, index=0, best_step=None)) < 60_000


def test_the_same_figures_make_the_same_drawing() -> None:
    panel = Panel("g", "loss", {"train": {1: 1.0, 2: 2.0}})
    assert draw(panel, index=0, best_step=None) == draw(panel, index=0, best_step=None)


def test_weights_norms_and_cosines_of_tasks_stand_together() -> None:
    names = ("balance/a", "balance/b", "gradient_norm/a", "gradient_norm/b", "cosine/a-b", "lr", "train/a/loss")
    result = panels({name: {1: 0.5} for name in names})
    assert [(p.title, list(p.curves)) for p in result if p.group == "Balancing of tasks"] == [
        ("weight per task", ["a", "b"]),
        ("gradient norm per task", ["a", "b"]),
        ("cosine similarity of the gradients of two tasks", ["a-b"]),
    ]


def losses(seed: int, number: int = 400) -> np.ndarray:
    """Falling with normal noise."""
    draws = np.random.default_rng(seed)
    return 2.0 + 3.0 * np.exp(-np.arange(number) / 60) + 0.05 * draws.standard_normal(number)


def test_a_spike_is_found_where_it_is() -> None:
    for seed in range(20):
        values = losses(seed)
        values[150] += 2.0
        values[300:302] += 1.0
        assert {150, 300, 301} <= set(spikes(values).nonzero()[0].tolist()) <= {150, 300, 301}


def test_noise_and_falling_are_no_spikes() -> None:
    assert sum(spikes(losses(seed)).sum() for seed in range(50)) <= 2


def test_what_is_short_flat_or_not_finite_is_none() -> None:
    assert not spikes(np.ones(WINDOW)).any()
    assert not spikes(np.ones(100)).any()
    assert not spikes(np.full(100, np.nan)).any()
    values = losses(0)
    values[100:130] = np.nan
    values[200] = np.inf
    assert not spikes(values).any()


def test_the_page_marks_and_counts_them() -> None:
    values = losses(1)
    values[150] += 2.0
    points = {step: float(v) for step, v in enumerate(values)}
    panel = Panel("All tasks together", "loss", {"train": points, "val": {399: 2.0}})
    assert panel.num_spikes == 1
    drawing = draw(panel, index=0, best_step=None)
    assert "1 spike at step 150" in drawing
    assert Panel("a", "accuracy", {"train": points}).num_spikes == 0
