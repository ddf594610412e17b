"""The table that ends a sweep: the better run is first, in either direction, and failed runs are last."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mmtrain.report.sweep import show_sweep
from mmtrain.training.sweep.records import JobRecord

ACCURACY, LOSS = "val/classification/accuracy", "val/loss"


def best(value: float, metric: str = ACCURACY, mode: str = "max") -> dict[str, Any]:
    return {"metric": metric, "value": value, "step": 12, "mode": mode}


def summary(best: dict[str, Any] | None, status: str = "done", **test: float) -> dict[str, Any]:
    """What a run leaves of itself; `classification_accuracy` in `test` is classification/accuracy."""
    return {
        "status": status,
        "best": best,
        "test": {name.replace("_", "/", 1): {"value": value, "chance": None} for name, value in test.items()},
        "samples_per_second": 123.4 if status != "failed" else None,
        "parameters": {"total": 19302, "trainable": 19302},
    }


@pytest.fixture
def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Shows a sweep of (overrides, summary or None) and gives the lines of the table and the rows of sweep.csv."""
    monkeypatch.setenv("COLUMNS", "220")

    def show(*runs: tuple[list[str], dict[str, Any] | None]) -> tuple[list[str], list[dict[str, str]]]:
        for number, (_, left) in enumerate(runs):
            (tmp_path / str(number)).mkdir()
            done = left is not None and left["status"] == "done"
            JobRecord(runs[number][0], 0 if done else 1).write(tmp_path / str(number))
            if left is not None:
                (tmp_path / str(number) / "summary.json").write_text(json.dumps(left))
        show_sweep(tmp_path)
        lines = capsys.readouterr().out.splitlines()
        files = [f"sweep: {tmp_path / 'sweep.csv'}", f"report: {tmp_path / 'sweep.html'}"]
        assert lines[-2:] == files and (tmp_path / "sweep.html").is_file()
        with (tmp_path / "sweep.csv").open(newline="", encoding="utf-8") as file:
            return lines, list(csv.DictReader(file))

    return show


def order(rows: list[dict[str, str]]) -> list[str]:
    return [row["run"] for row in rows]


def cells(lines: list[str], run: str) -> list[str]:
    """The cells of a run's line in the table."""
    (line,) = [line for line in lines if line.split("│")[1:2] and line.split("│")[1].strip() == run]
    return [cell.strip() for cell in line.split("│")[1:-1]]


@pytest.mark.parametrize(
    ("metric", "mode", "expected"),
    [(ACCURACY, "max", ["1", "2", "0"]), (LOSS, "min", ["0", "2", "1"])],
)
def test_the_better_run_stands_first(metric: str, mode: str, expected: list[str], shown: Any) -> None:
    lines, rows = shown(*(([f"seed={v}"], summary(best(v, metric, mode))) for v in (0.25, 0.75, 0.5)))
    assert order(rows) == expected
    assert [line.split("│")[1].strip() for line in lines if "seed=" in line] == expected
    assert lines[0].strip() == f"sweep, best {metric} first"
    assert [row["metric"] for row in rows] == [metric] * 3
    assert [float(row["value"]) for row in rows] == sorted((0.25, 0.75, 0.5), reverse=mode == "max")


def test_what_did_not_end_well_stands_last_and_says_so(shown: Any) -> None:
    lines, rows = shown(
        (["seed=0"], None),
        (["seed=1"], summary(best(0.9), "stopped")),
        (["seed=2"], summary(None, "failed")),
        (["seed=3"], summary(best(0.4))),
        (["seed=4"], summary(None)),
    )
    assert order(rows) == ["3", "4", "1", "0", "2"]
    assert [row["status"] for row in rows] == ["done", "done", "stopped", "failed", "failed"]
    assert [cells(lines, run)[2] for run in order(rows)] == [row["status"] for row in rows]
    assert cells(lines, "0") == ["0", "seed=0", "failed", "", "", ""]


def test_without_a_summary_nothing_is_made_up(shown: Any) -> None:
    _, rows = shown((["seed=0"], None), (["seed=1"], summary(best(0.5), classification_accuracy=0.5)))
    nothing = dict.fromkeys(
        ("metric", "value", "test/classification/accuracy", "samples_per_second", "seconds", "parameters"), ""
    )
    assert rows[1] == {"run": "0", "overrides": "seed=0", "status": "failed", **nothing}


def test_only_what_differs_is_said_of_a_run(shown: Any) -> None:
    common = ["data=files", "trainer.max_epochs=2"]
    runs = [["task=[matching]", "dim=8"], ["task=[matching]", "dim=16"], ["task=[contrastive,matching]", "dim=8"]]
    lines, rows = shown(*(([*common, *run], summary(best(1.0 - n / 4))) for n, run in enumerate(runs)))
    assert [row["overrides"] for row in rows] == [" ".join(run) for run in runs]
    assert [cells(lines, str(n))[1] for n in range(3)] == [" ".join(run) for run in runs]
    assert not any(override in line for override in common for line in lines)


@pytest.mark.parametrize("left", [summary(best(0.5), contrastive_recall=0.5), None])
def test_one_run_alone(left: dict[str, Any] | None, shown: Any) -> None:
    _, rows = shown((["seed=0"], left))
    assert [row["overrides"] for row in rows] == [""]
    assert rows[0]["status"] == ("failed" if left is None else "done")


def test_values_of_different_metrics_are_not_compared(shown: Any) -> None:
    """A sweep over tasks: each run is judged by its own first task."""
    lines, rows = shown(
        (["task=[a]"], summary(best(0.1, "val/a/recall"))),
        (["task=[b]"], summary(best(0.5, "val/b/accuracy"))),
        (["task=[b]", "dim=8"], summary(best(0.9, "val/b/accuracy"))),
        (["task=[a]", "dim=8"], summary(best(0.2, "val/a/recall"))),
    )
    assert order(rows) == ["3", "0", "2", "1"]
    assert lines[0].strip() == "sweep, best first"
    assert cells(lines, "3")[3] == "val/a/recall 0.2000"
    assert cells(lines, "2")[3] == "val/b/accuracy 0.9000"


def test_the_table_has_a_test_metric_for_each_task_and_the_file_has_all(shown: Any) -> None:
    lines, rows = shown(
        (["dim=8"], summary(best(0.5), contrastive_loss=2.0, contrastive_recall=0.25, loss=1.5)),
        (["dim=9"], summary(best(0.4), caption_loss=3.0, caption_bleu=0.125, caption_rouge=0.5)),
    )
    rows_of_heads = [[part.strip() for part in line.split("┃")[1:-1]] for line in lines if line.startswith("┃")]
    heads = ["".join(parts) for parts in zip(*rows_of_heads, strict=True)]  # a long name goes on below, after a slash
    tests = ["contrastive/recall", "caption/bleu"]
    assert heads == ["run", "overrides", "status", ACCURACY, *tests, "samples/s", "parameters"]
    assert cells(lines, "0") == ["0", "dim=8", "done", "0.5000", "0.2500", "", "123", "19.30 k"]
    assert cells(lines, "1") == ["1", "dim=9", "done", "0.4000", "", "0.1250", "123", "19.30 k"]
    everything = ["contrastive/loss", "contrastive/recall", "loss", "caption/loss", "caption/bleu", "caption/rouge"]
    first, last = ["run", "overrides", "status", "metric", "value"], ["samples_per_second", "seconds", "parameters"]
    assert list(rows[0]) == [*first, *(f"test/{name}" for name in everything), *last]
    assert rows[1]["test/caption/rouge"] == "0.5"
    assert rows[0]["samples_per_second"] == "123.4"


def test_overrides_are_no_formulas_in_the_table(shown: Any) -> None:
    added, plain = ["+trainer.max_steps=3"], ["fusion=sum"]
    _, rows = shown((added, summary(best(-0.5))), (plain, summary(best(-0.7))))
    assert [(row["overrides"], row["value"]) for row in rows] == [
        ("'+trainer.max_steps=3", "-0.5"),
        ("fusion=sum", "-0.7"),
    ]


def lucky_sweep() -> list[tuple[list[str], dict[str, Any]]]:
    """The best run is of the setting whose mean is lower."""
    values = {"sum": (0.9, 0.5, 0.4), "concat": (0.7, 0.75, 0.65)}
    tests = {"sum": (0.6, 0.4, 0.2), "concat": (0.5, 0.7, 0.6)}
    return [
        (
            ["data=files", f"fusion={fusion}", f"seed={seed}"],
            summary(best(values[fusion][seed]), classification_accuracy=tests[fusion][seed]),
        )
        for fusion in values
        for seed in range(3)
    ]


def test_with_seeds_the_page_begins_with_the_best_mean(shown: Any, tmp_path: Path) -> None:
    lines, rows = shown(*lucky_sweep())
    assert rows[0]["overrides"] == "fusion=sum seed=0"
    page = (tmp_path / "sweep.html").read_text()
    head, _, rest = page.partition("</header>")
    assert "<h1>fusion=concat</h1>" in head and "fusion=sum" not in head and "seed=" not in head
    assert '<pre class="command">python train.py data=files fusion=concat</pre>' in head
    assert "<dd>0.700 ± 0.050</dd>" in head and "<dd>0.600 ± 0.100</dd>" in head
    assert "mean of 3 seeds" in head
    seeds = rest.partition('id="seeds"')[2].partition("</section>")[0]
    assert seeds.index("fusion=concat") < seeds.index("fusion=sum")
    assert "0.600 ± 0.100" in seeds and "0.400 ± 0.200" in seeds
    (line,) = [line for line in lines if "fusion=concat" in line and "seed=" not in line]
    assert "0.600 ± 0.100" in line


def test_a_seed_is_no_knob(shown: Any, tmp_path: Path) -> None:
    shown(*lucky_sweep())
    page = (tmp_path / "sweep.html").read_text()
    knobs = page.partition('id="knobs"')[2].partition("</section>")[0]
    assert '<th scope="row">fusion</th>' in knobs and ">seed<" not in knobs
    assert "6 runs by fusion;" in knobs


def test_seeds_alone_have_a_mean(shown: Any, tmp_path: Path) -> None:
    shown(*(([f"seed={n}"], summary(best(value), classification_accuracy=value)) for n, value in enumerate((0.4, 0.6))))
    page = (tmp_path / "sweep.html").read_text()
    assert "<h1>2 seeds</h1>" in page and "<dd>0.500 ± 0.141</dd>" in page and 'id="knobs"' not in page


def test_without_seeds_the_page_begins_with_the_best_run(shown: Any, tmp_path: Path) -> None:
    shown(*(([f"dim={n}"], summary(best(n / 8), classification_accuracy=0.5)) for n in (1, 2)))
    head = (tmp_path / "sweep.html").read_text().partition("</header>")[0]
    assert "<h1>dim=2</h1>" in head and "<dd>0.250</dd>" in head and "best, run 1" in head
