"""The table that ends a sweep."""

import csv
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show_sweep(folder: Path, runs: list[tuple[str, list[str]]]) -> None:
    """Print the runs, best first by the metric that chose their checkpoints, and write them to sweep.csv.

    Args:
        folder: of the sweep.
        runs: folder and overrides of each.
    """
    common = set.intersection(*(set(overrides) for _, overrides in runs))
    rows = [_row(Path(run_dir), [o for o in overrides if o not in common]) for run_dir, overrides in runs]
    best = next((r["best"]["metric"] for r in rows if r["best"]), None)
    rows.sort(key=lambda r: (r["best"] is None, -(r["best"]["value"] if r["best"] else 0.0)))
    table = Table(title=f"sweep, best {best} first", title_justify="left", title_style="bold")
    columns = _test_columns(rows)
    for name in ("run", "overrides", "status", best or "best", *columns, "samples/s", "parameters"):
        table.add_column(name, justify="left" if name in ("run", "overrides", "status") else "right", overflow="fold")
    for row in rows:
        value = f"{row['best']['value']:.4f}" if row["best"] else ""
        tests = [f"{row['test'][c]['value']:.4f}" if c in row["test"] else "" for c in columns]
        rate = f"{row['samples_per_second']:.0f}" if row["samples_per_second"] else ""
        table.add_row(
            row["run"], " ".join(row["overrides"]), row["status"], value, *tests, rate, f"{row['parameters']:,}"
        )
    console = Console(highlight=False)
    console.print(table)
    path = folder / "sweep.csv"
    _write_csv(path, rows)
    console.print(f"sweep: {path}", markup=False, soft_wrap=True)


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
        "parameters": summary.get("parameters", {}).get("total", 0),
    }


def _test_columns(rows: list[dict[str, Any]]) -> list[str]:
    """One metric a task: recall, accuracy, or the first."""
    names = dict.fromkeys(n for r in rows for n in r["test"] if n.count("/") == 1)
    wanted = [n for n in names if n.endswith(("/recall", "/accuracy"))]
    return wanted or list(names)[:3]


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
