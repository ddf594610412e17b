"""The page of a run: report.html, one self-contained file.

It is written from the files of the run folder, which may be missing, and from examples of the tasks. The page
states clearly what is missing for a stopped or failed run.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from PIL import Image

from mmtrain.errors import ConfigError
from mmtrain.io.run_files import CONFIG, note, optional_json, read_json_lines, read_text
from mmtrain.report.curves import Panel, draw, panels, read_metrics
from mmtrain.report.exhibits import Album, attention_panel, caption_table, grid, matrix
from mmtrain.report.losses import loss_sentences
from mmtrain.report.page import write_page
from mmtrain.report.robustness import corruption_tables, group_tables
from mmtrain.report.subsets import is_of_subset, subset_tables
from mmtrain.report.table import against_chance, digits, not_evaluated_sentences, short
from mmtrain.types import AttentionMap, Captions, Confusion, ReportItem, Retrieval
from mmtrain.units import format_bytes

NO_SUMMARY: dict[str, Any] = {
    "status": None,
    "mode": "fit",
    "command": None,
    "steps": None,
    "epochs": None,
    "best": None,
    "evaluated_weights": None,
    "loss": {},
    "not_judged": [],
    "data_notes": [],
    "test": {},
    "corruptions": [],
    "groups": [],
    "samples_per_second": None,
    "peak_memory": None,
    "seconds": None,
    "parameters": None,
    "parts": [],
    "versions": {},
    "git_commit": None,
    "error": None,
}
RUNS = {"fit": "Training run", "test": "Test run", "predict": "Prediction run"}
EXPECTED = {"fit": ("test metrics", "curves", "examples"), "test": ("test metrics", "examples")}


class Figure(NamedTuple):
    """One headline value: a number, its name, and a note for comparison."""

    value: str
    name: str
    note: str = ""


def write_report(
    run_dir: Path,
    *,
    exhibits: Sequence[ReportItem],
    picture: Callable[[str], Image.Image | None],
    text: Callable[[str], str | None],
) -> Path:
    """Write `run_dir/report.html` atomically.

    Args:
        run_dir: folder of the run; metrics.csv, config.yaml and summary.json are read if they exist.
        exhibits: examples of the tasks.
        picture: returns the image of a row by its id, or None if it has none.
        text: returns the caption of a row by its id, or None if it has none.

    Returns:
        The path of the page.
    """
    path = run_dir / "report.html"
    write_page(path, "template.html", _contents(run_dir, exhibits=exhibits, picture=picture, text=text))
    return path


def _contents(
    run_dir: Path,
    *,
    exhibits: Sequence[ReportItem],
    picture: Callable[[str], Image.Image | None],
    text: Callable[[str], str | None],
) -> dict[str, Any]:
    summary = read_summary(run_dir)
    full = {metric: figure for metric, figure in summary["test"].items() if not is_of_subset(metric)}
    config, overrides = _config(run_dir)
    averaged = summary["evaluated_weights"] == "average"
    curves = panels(read_metrics(run_dir / "metrics.csv"), averaged=averaged)
    album = Album(picture=picture)
    shown = {"test metrics": summary["test"], "curves": curves, "examples": exhibits}
    absent = [name for name in EXPECTED.get(summary["mode"], ()) if not shown[name]]
    return {
        "run": summary,
        "kind": RUNS.get(summary["mode"], "Run"),
        "title": _title(summary),
        "folder": "/".join(run_dir.resolve().parts[-2:]),
        "status": summary["status"] or "unfinished",
        "notice": _notice(summary, absent=absent),
        "headline": _headline(summary, full),
        "test": [(m, f["value"], f["chance"], against_chance(m, f["value"], f["chance"])) for m, f in full.items()],
        "not_judged": not_evaluated_sentences(summary["not_judged"]),
        "data_notes": list(map(str, summary["data_notes"])),
        "subsets": subset_tables(summary["test"]),
        "corruptions": corruption_tables(summary["corruptions"], summary["test"]),
        "groups": group_tables(summary["groups"]),
        "skipped": _skipped(run_dir),
        "plan": _planned(run_dir, summary),
        "loss": loss_sentences(summary["loss"]),
        "curves": _drawn(curves, best_step=summary["best"] and summary["best"]["step"]),
        "grids": [grid(e, album=album, text=text) for e in exhibits if isinstance(e, Retrieval)],
        "gazes": [
            g for e in exhibits if isinstance(e, AttentionMap) if (g := attention_panel(e, album=album, text=text))
        ],
        "stories": [caption_table(e, album=album, text=text) for e in exhibits if isinstance(e, Captions)],
        "matrices": [matrix(e) for e in exhibits if isinstance(e, Confusion)],
        "thumbnails": album.thumbnails,
        "config": config,
        "overrides": overrides,
        "command": summary["command"] or (config and shlex.join(["python", "train.py", *overrides])),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def read_summary(run_dir: Path) -> dict[str, Any]:
    """Content of summary.json, with None or an empty value under every missing name."""
    given = optional_json(run_dir / "summary.json") or {}
    # A run that failed early has null for unknown values.
    results = {key: nothing if given.get(key) is None else given[key] for key, nothing in NO_SUMMARY.items()}
    kinds = {key: type(nothing) for key, nothing in NO_SUMMARY.items() if isinstance(nothing, dict | list)}
    return results | {key: NO_SUMMARY[key] for key, kind in kinds.items() if not isinstance(results[key], kind)}


def _skipped(run_dir: Path) -> list[dict[str, Any]]:
    """Steps that were not finite, one row each."""
    return read_json_lines(run_dir / "skipped.jsonl", keys=("step", "first", "ids", "losses", "grad_norm"))


def _planned(run_dir: Path, summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Values of plan.json next to the measured values: name, planned, measured."""
    path = run_dir / "plan.json"
    plan = optional_json(path)
    if plan is None:
        return []
    try:
        return _planned_and_measured(plan, summary)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        note(f"{path} is damaged: {type(error).__name__} {error}; the report is written without it")
        return []


def _planned_and_measured(plan: Mapping[str, Any], summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    run, parameters, peak = plan["run"], summary["parameters"], summary["peak_memory"]
    sizes = {kind: format_bytes(size) for kind, size in plan["memory"].items() if size}
    kinds = ", ".join(f"{kind} {size}" for kind, size in sizes.items() if kind != "total")
    return [
        ("parameters", f"{plan['parameters']['total']:,}", f"{parameters['total']:,}" if parameters else "-"),
        ("memory per device", f"{sizes['total']} ({kinds})", "-" if peak is None else format_bytes(peak)),
        ("steps", f"{run['steps']:,}", "-" if summary["steps"] is None else f"{summary['steps']:,}"),
        ("samples per second", _as_integer(run["samples_per_second"]), _as_integer(summary["samples_per_second"])),
        ("seconds", _as_integer(run["seconds"]), _as_integer(summary["seconds"])),
    ]


def _as_integer(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}"


def _config(run_dir: Path) -> tuple[str | None, list[str]]:
    """The configuration as text, and the overrides of the command line."""
    path = run_dir / CONFIG
    if not path.exists():
        return None, []
    try:
        config = read_text(path, fix="")
        values = yaml.safe_load(config)
        return config, [str(override) for override in values.get("overrides") or []]
    except (ConfigError, yaml.YAMLError, AttributeError, TypeError) as error:
        note(f"{str(error).splitlines()[0]}; the report is written without {path}")
        return None, []


def _title(summary: Mapping[str, Any]) -> str:
    """The names of the encoders and the fusion."""
    names = [
        part["what"] for part in summary["parts"] if part["part"].split(".")[0] in ("encoder", "encoders", "fusion")
    ]
    return " + ".join(dict.fromkeys(names)) or RUNS.get(summary["mode"], "Run")


def _notice(summary: Mapping[str, Any], *, absent: Sequence[str]) -> str | None:
    """What a reader must know first: how the run ended if it is not done, and what is missing on the page."""
    if summary["status"] == "done":
        # Not every task has examples, so nothing is missing in a run without them.
        absent = [name for name in absent if name != "examples"]
    after = "" if summary["steps"] is None else f" after {digits(summary['steps'])} steps"
    how = {
        "done": "",
        "stopped": f"This run was stopped{after}, before its end. The page shows its state at that point.",
        "pruned": f"The sweep pruned this run{after}, because other runs had better results at that point.",
        "failed": f"This run failed{after}.",
        None: "This run has no summary.json: it is still running, or it was killed. The page shows what it has logged.",
    }[summary["status"]]
    lack = f"This page therefore has no {_listed(absent)}." if how else f"This run recorded no {_listed(absent)}."
    return " ".join(filter(None, (how, lack if absent else ""))) or None


def _listed(names: Sequence[str]) -> str:
    return " and no ".join(filter(None, (", no ".join(names[:-1]), *names[-1:])))


def _headline(summary: Mapping[str, Any], test: Mapping[str, Any]) -> list[Figure]:
    best, parameters = summary["best"], summary["parameters"]
    figures = [_test_figure(m, test[m]) for m in _leading(test, best=best)]
    if best:
        figures.append(Figure(digits(best["value"]), best["metric"], f"best, at step {digits(best['step'])}"))
    if summary["steps"] is not None:
        epochs = "" if summary["epochs"] is None else f"{digits(summary['epochs'])} epochs"
        figures.append(Figure(digits(summary["steps"]), "steps", epochs))
    if summary["seconds"] is not None:
        figures.append(Figure(_duration(summary["seconds"]), "wall time"))
    if summary["samples_per_second"] is not None:
        figures.append(Figure(digits(summary["samples_per_second"]), "samples per second"))
    if parameters:
        figures.append(Figure(short(parameters["total"]), "parameters", f"{short(parameters['trainable'])} trainable"))
    return figures


def _test_figure(metric: str, figure: Mapping[str, Any]) -> Figure:
    chance = "" if figure["chance"] is None else f"chance {digits(figure['chance'])}"
    return Figure(digits(figure["value"]), f"test/{metric}", chance)


def _leading(test: Mapping[str, Mapping[str, Any]], *, best: Mapping[str, Any] | None) -> list[str]:
    """One test metric per task: the one that chose the best checkpoint, otherwise the first with a chance level."""
    chooser = best["metric"].removeprefix("val/") if best else None
    leading: dict[str, str] = {}
    for metric in sorted(test, key=lambda m: (m != chooser, test[m]["chance"] is None)):
        leading.setdefault(metric.rpartition("/")[0], metric)
    return [metric for metric in test if metric in leading.values()]


def _duration(seconds: float) -> str:
    """Wall time in its two largest units.

    >>> _duration(42.3), _duration(301.2), _duration(7380)
    ('42 s', '5 min 1 s', '2 h 3 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _drawn(curves: Sequence[Panel], *, best_step: int | None) -> dict[str, list[dict[str, Any]]]:
    """The panels as drawings, by heading."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for index, panel in enumerate(curves):
        drawing = draw(panel, index=index, best_step=best_step)
        groups.setdefault(panel.group, []).append(
            {
                "title": panel.title,
                "svg": drawing,
                "num_not_finite": panel.num_not_finite,
                "num_spikes": panel.num_spikes,
            }
        )
    return groups
