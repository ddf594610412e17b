"""The end of a sweep: a table in the terminal, sweep.csv and the page sweep.html."""

import os
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from mmtrain.io.console import Terminal, plain_text
from mmtrain.io.run_files import optional_json, write_csv
from mmtrain.report.knobs import SEED, Repeated, Run, importances, knobs_of, repeated
from mmtrain.report.page import write_page
from mmtrain.report.table import digits, short
from mmtrain.training.run_folder import is_locked
from mmtrain.training.sweep.records import NOT_OF_THE_RUN, JobRecord, folders_of

WIDTH = 120  # if neither a terminal nor COLUMNS sets another


def show_sweep(folder: Path) -> None:
    """Print the runs, best first by the metric of their best checkpoints, and write sweep.csv and sweep.html.

    Stopped and failed runs are last, because their values are those of an incomplete training.

    Args:
        folder: of the sweep; it also contains runs of other machines.
    """
    rows = _rows(folder)
    metrics = list(dict.fromkeys(r["best"]["metric"] for r in rows if r["best"]))  # one, unless tasks are swept
    rows.sort(key=lambda row: _place(row, metrics))
    console = Terminal(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", WIDTH)))
    console.print(_table(rows, metrics, roomy=console.width >= WIDTH))
    again = _repeated(rows, metrics)
    if again:
        console.print(_table_of_seeds(again, rows))
    _write_csv(folder / "sweep.csv", rows)
    console.print(f"sweep: {folder / 'sweep.csv'}", markup=False, soft_wrap=True)
    write_page(folder / "sweep.html", "sweep.html", _contents(folder, rows, metrics, again))
    console.print(f"report: {folder / 'sweep.html'}", markup=False, soft_wrap=True)


def _rows(folder: Path) -> list[dict[str, Any]]:
    runs = [(run, record) for run in folders_of(folder) if (record := JobRecord.read(run)) is not None]
    messages = [[o for o in record.overrides if o.split("=")[0] not in NOT_OF_THE_RUN] for _, record in runs]
    common = set.intersection(*map(set, messages)) if messages else set()
    return [
        _row(folder, run, record, [o for o in own if o not in common], own)
        for (run, record), own in zip(runs, messages, strict=True)
    ]


def _row(folder: Path, run: Path, record: JobRecord, overrides: list[str], full: list[str]) -> dict[str, Any]:
    path = run / "summary.json"
    summary = optional_json(path) or {}
    status = summary.get("status", "failed" if record.status else "killed")
    if record.status is None:
        status = "running" if is_locked(run) else "killed"
    return {
        "run": str(run.relative_to(folder)),
        "overrides": overrides,
        "whole": full,
        "status": status,
        "best": summary.get("best"),
        "test": summary.get("test") or {},
        "samples_per_second": summary.get("samples_per_second"),
        "seconds": summary.get("seconds"),
        "parameters": summary.get("parameters", {}).get("total"),
        "report": (run / "report.html").exists(),
    }


def _place(row: Mapping[str, Any], metrics: Sequence[str]) -> tuple[bool, int, float]:
    """The sort key of runs. Values are compared only with those of the same metric."""
    best = row["best"]
    if best is None:
        return row["status"] != "done", len(metrics), 0.0
    value = best["value"] if best["mode"] == "min" else -best["value"]
    return row["status"] != "done", metrics.index(best["metric"]), value


# ---------------------------------------------------------------------------- in the terminal


def _table(rows: list[dict[str, Any]], metrics: list[str], *, roomy: bool) -> Table:
    metric = metrics[0] if len(metrics) == 1 else None
    columns = _test_columns(rows)
    title = "sweep, best first" if metric is None else f"sweep, best {metric} first"
    table = Table(title=Text(title, style="bold"), title_justify="left")
    words = max((len(word) for row in rows for word in row["overrides"]), default=0) if roomy else 0
    for name in ("run", "overrides", "status"):
        table.add_column(name, overflow="fold", min_width=min(words, 40) if name == "overrides" else None)
    for name in (metric or "best", *columns, "samples/s", "parameters"):
        # a name may wrap after a slash, but not inside a word
        table.add_column(plain_text(name.replace("/", "/\n")), justify="right", overflow="fold")
    for row in rows:
        best = row["best"]
        value = "" if best is None else f"{best['value']:.4f}" if metric else f"{best['metric']} {best['value']:.4f}"
        tests = [f"{row['test'][c]['value']:.4f}" if c in row["test"] else "" for c in columns]
        rate = f"{row['samples_per_second']:.0f}" if row["samples_per_second"] else ""
        parameters = "" if row["parameters"] is None else short(row["parameters"])
        cells = (row["run"], " ".join(row["overrides"]), row["status"], value, *tests, rate, parameters)
        table.add_row(*(plain_text(cell) for cell in cells))
    return table


def _table_of_seeds(again: Sequence[Repeated], rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = _test_columns(rows)
    table = Table(title=Text("mean over seeds", style="bold"), title_justify="left")
    tests = [f"test {name}".replace("/", "/\n") for name in columns]
    for name in ("overrides", "runs", "mean", "deviation", "difference to the best", *tests):
        table.add_column(plain_text(name), justify="left" if name == "overrides" else "right")
    for one in again:
        deviation = "" if one.deviation is None else digits(one.deviation)
        cells = (" ".join(one.overrides) or "-", str(len(one.runs)), digits(one.mean), deviation, _against_best(one))
        table.add_row(*(plain_text(cell) for cell in (*cells, *(_in_words(t) for t in _tests_of(one, rows, columns)))))
    return table


class Spread(NamedTuple):
    """A test metric over seeds: its mean, and the standard deviation of one run (n - 1); None for a single run."""

    mean: float
    deviation: float | None


def _tests_of(one: Repeated, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[Spread | None]:
    """Test metrics of runs that differ only by their seed; None if none of them was tested."""
    mine = [row["test"] for row in rows if row["run"] in one.runs]
    results = []
    for name in columns:
        values = [float(test[name]["value"]) for test in mine if name in test]
        deviation = stdev(values) if len(values) > 1 else None
        results.append(Spread(fmean(values), deviation) if values else None)
    return results


def _in_words(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return digits(spread.mean) if spread.deviation is None else f"{digits(spread.mean)} ± {digits(spread.deviation)}"


def _against_best(one: Repeated) -> str:
    """Whether a difference is larger than noise, as text."""
    if one.margin is None:
        return "the best"
    what = "worse" if one.behind > one.margin else "within noise"
    return f"{what}: {digits(one.behind)} of {digits(one.margin)}"


def _test_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One metric per task: recall, accuracy, or the first that is not a loss."""
    names = dict.fromkeys(n for r in rows for n in r["test"] if n.count("/") == 1)
    chosen: dict[str, str] = {}
    for name in sorted(names, key=lambda n: (not n.endswith(("/recall", "/accuracy")), n.endswith("/loss"))):
        chosen.setdefault(name.partition("/")[0], name)
    return [name for name in names if name in chosen.values()]


# ------------------------------------------------------------------------------------ as files


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(n for r in rows for n in r["test"]))
    tests = [f"test/{n}" for n in names]
    columns = ["run", "overrides", "status", "metric", "value", *tests, "samples_per_second", "seconds", "parameters"]
    lines = []
    for r in rows:
        best = r["best"] or {"metric": "", "value": ""}
        values = [r["test"][n]["value"] if n in r["test"] else "" for n in names]
        messages = [r["run"], " ".join(r["overrides"]), r["status"], best["metric"], best["value"]]
        lines.append([*messages, *values, r["samples_per_second"], r["seconds"], r["parameters"]])
    write_csv(path, columns, lines)


def _compared(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> tuple[list[Run], bool]:
    """The runs that are done, by the metric that most of them have, and whether larger is better."""
    done = [row for row in rows if row["status"] == "done" and row["best"]]
    counts = Counter(row["best"]["metric"] for row in done)
    metric = max(metrics, key=lambda name: counts[name], default=None)
    same = [row for row in done if row["best"]["metric"] == metric]
    runs = [Run(row["run"], row["overrides"], row["best"]["value"]) for row in same]
    return runs, all(row["best"]["mode"] != "min" for row in same)


def _repeated(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[Repeated]:
    runs, larger_is_better = _compared(rows, metrics)
    return repeated(runs, larger_is_better=larger_is_better)


def _alone(overrides: Sequence[str]) -> list[str]:
    """Overrides of a single run, without those that belong to the sweep."""
    return [o for o in overrides if o.split("=")[0].lstrip("+~") != "sweep"]


def _contents(
    folder: Path, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], again: Sequence[Repeated]
) -> dict[str, Any]:
    from mmtrain.report.parallel import MAX_KNOBS, parallel  # importing matplotlib is slow

    runs, larger_is_better = _compared(rows, metrics)
    metric = next((row["best"]["metric"] for row in rows if runs and row["run"] == runs[0].name), None)
    knobs = [knob for knob in knobs_of(runs) if knob != SEED]  # differences between seeds are noise
    ranked = [result for result in importances(runs) if result.knob != SEED] if len(runs) > 1 else []
    order = [i.knob for i in ranked] if len(knobs) > MAX_KNOBS else knobs
    thick = again[0].runs if again else ()
    drawn = parallel(runs, order, metric, larger_is_better=larger_is_better, best=thick) if knobs and metric else None
    counts = Counter(row["status"] for row in rows)
    columns = _test_columns(rows)
    return {
        "folder": "/".join(folder.resolve().parts[-2:]),
        "counts": [f"{n} {status}" for status, n in counts.items()],
        "all_done": set(counts) <= {"done", "pruned"},
        "rows": rows,
        "metric": metric,
        "columns": columns,
        "best": _best(rows, runs, again, columns),
        "drawn": drawn,
        "left_out": max(0, len(knobs) - MAX_KNOBS) if drawn else 0,
        "importances": ranked,
        "repeated": [
            (one, _against_best(one), [_in_words(test) for test in _tests_of(one, rows, columns)]) for one in again
        ],
    }


def _best(
    rows: Sequence[Mapping[str, Any]], runs: Sequence[Run], again: Sequence[Repeated], columns: Sequence[str]
) -> dict[str, Any] | None:
    """The top of the page: the setting with the best mean over seeds, or the best run if the seed was not swept."""
    if not runs:
        return None
    names = again[0].runs if again else (runs[0].name,)
    first = next(row for row in rows if row["run"] in names)
    if not again:
        command = _alone(first["whole"])
        tests = [(name, digits(first["test"][name]["value"])) for name in columns if name in first["test"]]
        title = " ".join(first["overrides"]) or f"run {first['run']}"
        value, of = digits(first["best"]["value"]), f"run {first['run']}"
    else:
        command = [o for o in _alone(first["whole"]) if o.split("=")[0] != SEED]
        spreads = zip(columns, _tests_of(again[0], rows, columns), strict=True)
        tests = [(name, _in_words(spread)) for name, spread in spreads if spread is not None]
        title = " ".join(again[0].overrides) or f"{len(names)} seeds"
        value = _in_words(Spread(again[0].mean, again[0].deviation))
        of = "1 seed" if len(names) == 1 else f"mean of {len(names)} seeds ± deviation of one"
    return {
        "title": title,
        "value": value,
        "of": of,
        "tests": tests,
        "command": shlex.join(["python", "train.py", *command]),
    }
