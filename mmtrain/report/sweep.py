"""The table that ends a sweep."""

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmtrain.report.table import short

WIDTH = 120  # where neither a terminal nor COLUMNS says another


def show_sweep(folder: Path, runs: list[tuple[str, list[str]]]) -> None:
    """Print the runs, best first by the metric that chose their checkpoints, and write them to sweep.csv.

    Stopped and failed runs stand last: what they reached is not what they would have.

    Args:
        folder: of the sweep.
        runs: folder and overrides of each.
    """
    common = set.intersection(*(set(overrides) for _, overrides in runs))
    rows = [_row(Path(run_dir), [o for o in overrides if o not in common]) for run_dir, overrides in runs]
    metrics = list(dict.fromkeys(r["best"]["metric"] for r in rows if r["best"]))  # one, unless tasks are swept over
    rows.sort(key=lambda row: _place(row, metrics))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", WIDTH)))
    console.print(_table(rows, metrics, roomy=console.width >= WIDTH))
    path = folder / "sweep.csv"
    _write_csv(path, rows)
    console.print(f"sweep: {path}", markup=False, soft_wrap=True)


def _place(row: dict[str, Any], metrics: list[str]) -> tuple[bool, int, float]:
    """What the runs are sorted by; values are compared with those of the same metric only."""
    best = row["best"]
    if best is None:
        return row["status"] != "done", len(metrics), 0.0
    value = best["value"] if best["mode"] == "min" else -best["value"]
    return row["status"] != "done", metrics.index(best["metric"]), value


def _table(rows: list[dict[str, Any]], metrics: list[str], *, roomy: bool) -> Table:
    metric = metrics[0] if len(metrics) == 1 else None
    columns = _test_columns(rows)
    # Text, not str: overrides such as task=[matching] hold brackets, which rich would read as markup.
    title = "sweep, best first" if metric is None else f"sweep, best {metric} first"
    table = Table(title=Text(title, style="bold"), title_justify="left")
    words = max((len(word) for row in rows for word in row["overrides"]), default=0) if roomy else 0
    for name in ("run", "overrides", "status"):
        table.add_column(name, overflow="fold", min_width=min(words, 40) if name == "overrides" else None)
    for name in (metric or "best", *columns, "samples/s", "parameters"):
        # a name may wrap after a slash, not in the middle of a word
        table.add_column(Text(name.replace("/", "/\n")), justify="right", overflow="fold")
    for row in rows:
        best = row["best"]
        value = "" if best is None else f"{best['value']:.4f}" if metric else f"{best['metric']} {best['value']:.4f}"
        tests = [f"{row['test'][c]['value']:.4f}" if c in row["test"] else "" for c in columns]
        rate = f"{row['samples_per_second']:.0f}" if row["samples_per_second"] else ""
        parameters = "" if row["parameters"] is None else short(row["parameters"])
        cells = (row["run"], " ".join(row["overrides"]), row["status"], value, *tests, rate, parameters)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _row(folder: Path, overrides: list[str]) -> dict[str, Any]:
    path = folder / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {
        "run": folder.name,
        "overrides": overrides,
        "status": summary.get("status", "failed"),
        "best": summary.get("best"),
        "test": summary.get("test") or {},
        "samples_per_second": summary.get("samples_per_second"),
        "parameters": summary.get("parameters", {}).get("total"),
    }


def _test_columns(rows: list[dict[str, Any]]) -> list[str]:
    """One metric a task: recall, accuracy, or the first that is no loss."""
    names = dict.fromkeys(n for r in rows for n in r["test"] if n.count("/") == 1)
    chosen: dict[str, str] = {}
    for name in sorted(names, key=lambda n: (not n.endswith(("/recall", "/accuracy")), n.endswith("/loss"))):
        chosen.setdefault(name.partition("/")[0], name)
    return [name for name in names if name in chosen.values()]


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(n for r in rows for n in r["test"]))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "run",
                "overrides",
                "status",
                "metric",
                "value",
                *(f"test/{n}" for n in names),
                "samples_per_second",
                "parameters",
            ]
        )
        for r in rows:
            best = r["best"] or {"metric": "", "value": ""}
            tests = [r["test"][n]["value"] if n in r["test"] else "" for n in names]
            writer.writerow(
                [
                    r["run"],
                    " ".join(r["overrides"]),
                    r["status"],
                    best["metric"],
                    best["value"],
                    *tests,
                    r["samples_per_second"],
                    r["parameters"],
                ]
            )
