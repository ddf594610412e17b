"""The model card, card.md: what a user must know about a model before using it.

It contains only facts from the run folder and the data. Everything that was not tested is listed as such. All values
are escaped, because names of classes, columns and folders come from strangers, and the card is published.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from mmtrain.io.escape import escape_markdown as md
from mmtrain.io.escape import escape_markdown_line, markdown_code
from mmtrain.io.run_files import read_config, read_json_lines, write_text
from mmtrain.report.losses import loss_sentences
from mmtrain.report.report import read_summary
from mmtrain.report.robustness import corruption_tables, group_tables
from mmtrain.report.subsets import is_of_subset, subset_tables
from mmtrain.report.table import digits, not_evaluated_sentences
from mmtrain.units import format_bytes

NOT_STATED = "not given"
WEIGHTS = {"average": "moving average of the weights", "current": "weights of the last step before an evaluation"}


class DataFacts(NamedTuple):
    """Facts about the data.

    Attributes:
        name: of its folder.
        license: its licence; None if it is not given.
        languages: of its texts and speech; None if they are not given.
        reads: the modalities that the model reads.
        rows: number of rows by split.
        filled: number of rows with each input and target, by split; None if they were not counted.
        usable: number of training rows that some task can learn from; None if they were not counted.
    """

    name: str
    license: str | None
    languages: Sequence[str] | None
    reads: Sequence[str]
    rows: Mapping[str, int]
    filled: Mapping[str, Mapping[str, int] | None]
    usable: int | None = None


def write_card(run_dir: Path, data: DataFacts) -> Path:
    """Write `run_dir/card.md` atomically.

    Args:
        run_dir: folder of the run; summary.json and config.yaml are read.
        data: facts about the data of the run.
    """
    summary = read_summary(run_dir)
    config: Any = OmegaConf.to_container(read_config(run_dir))
    sections = {
        f"# {md(run_dir.resolve().name)}": _head(summary),
        "## Data": _data(summary, data),
        "## Model": _model(summary, config),
        "## Training": _training(summary, config),
        "## Metrics": _figures(summary),
        "## Missing modalities": _subsets(summary),
        "## Corruptions": _corruptions(summary),
        "## Groups": _groups(summary),
        "## Limits": _limits(summary, data, num_bad=len(read_json_lines(run_dir / "quarantine.jsonl"))),
        "## Use": _use(config),
    }
    parts = [f"{head}\n\n{body}" for head, lines in sections.items() if (body := "\n".join(lines))]
    path = run_dir / "card.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [[md(cell) for cell in line] for line in (head, *rows)]
    return ["| " + " | ".join(line) + " |" for line in (lines[0], ["---"] * len(head), *lines[1:])]


def _head(summary: Mapping[str, Any]) -> Iterator[str]:
    versions = summary["versions"]
    yield (
        f"Trained with mmtrain {md(versions.get('mmtrain', NOT_STATED))}, torch"
        f" {md(versions.get('torch', NOT_STATED))}."
    )
    yield f"Commit: {md(summary['git_commit'] or NOT_STATED)}."


def _data(summary: Mapping[str, Any], data: DataFacts) -> Iterator[str]:
    yield f"- name: {md(data.name)}"
    yield f"- licence: {md(data.license or NOT_STATED)}"
    yield f"- languages: {md(', '.join(data.languages) if data.languages else NOT_STATED)}\n"
    names = list(dict.fromkeys(name for counts in data.filled.values() for name in counts or ()))
    rows = []
    for split, count in data.rows.items():
        filled = data.filled[split]
        rows.append([split, f"{count:,}", *("-" if filled is None else f"{filled.get(n, 0):,}" for n in names)])
    yield from _table(["split", "rows", *(f"with {name}" for name in names)], rows)
    notes = summary["data_notes"]
    yield from ("", *(f"- {md(note)}" for note in notes)) if notes else ()


def _model(summary: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    starts = {f"encoder.{m}": _start(node) for m, node in config["encoder"].items() if isinstance(node, dict)}
    rows = [
        [p["part"], p["what"], starts.get(p["part"], ""), f"{p['parameters']:,}", f"{p['trainable']:,}"]
        for p in summary["parts"]
    ]
    yield from _table(["component", "class", "starts from", "parameters", "trainable"], rows)


def _start(encoder: Mapping[str, Any]) -> str:
    """The pretrained weights of an encoder: the name of a file, a folder or a hub repository; or none."""
    given = encoder.get("pretrained")
    if given in (None, False):
        return "random weights"
    named = encoder.get("name")
    return ", ".join(str(word) for word in (named, given if given is True else Path(str(given)).name) if word)


def _training(summary: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    best = summary["best"]
    trainer = config["trainer"]
    yield f"- command: {markdown_code(summary['command'])}"
    facts = {
        "steps": digits(summary["steps"]),
        "epochs": digits(summary["epochs"]),
        "samples per step": config["data"]["batch_size"],
        "seed": config["seed"],
        "precision": trainer["precision"],
        "seconds": digits(None if summary["seconds"] is None else round(summary["seconds"])),
        "peak memory": None if summary["peak_memory"] is None else format_bytes(summary["peak_memory"]),
        "best checkpoint": None if best is None else f"{best['metric']} {digits(best['value'])} at step {best['step']}",
    }
    if summary["evaluated_weights"] is not None:
        facts["evaluated weights"] = WEIGHTS[summary["evaluated_weights"]]
    yield from (f"- {name}: {md(NOT_STATED if value is None else value)}" for name, value in facts.items())
    yield from (f"- {md(sentence)}" for sentence in loss_sentences(summary["loss"]))


def _figures(summary: Mapping[str, Any]) -> Iterator[str]:
    """Every test metric with all modalities, including calibration."""
    test = {name: figure for name, figure in summary["test"].items() if not is_of_subset(name)}
    if not test:
        yield "There is no test split."
        return
    rows = [[name, digits(f["value"]), digits(f["chance"])] for name, f in test.items()]
    yield from _table(["test", "value", "chance"], rows)


def _subsets(summary: Mapping[str, Any]) -> Iterator[str]:
    for table in subset_tables(summary["test"]):
        chance = [digits(summary["test"][f"{table.task}/{metric}"]["chance"]) for metric in table.metrics]
        rows = [
            [
                " + ".join(m for m, is_there in zip(table.modalities, modality_flags, strict=True) if is_there),
                *([digits(count)] if table.is_counted else []),
                *("-" if cell is None else digits(cell.value) for cell in cells),
            ]
            for (modality_flags, cells), count in zip(table.rows, table.num_rows, strict=True)
        ]
        counted = [""] if table.is_counted else []
        yield f"{escape_markdown_line(table.task)}\n"
        heads = ["present", *(["rows"] if counted else []), *table.metrics]
        yield from _table(heads, [*rows, ["chance", *counted, *chance]])


def _corruptions(summary: Mapping[str, Any]) -> Iterator[str]:
    for table in corruption_tables(summary["corruptions"], summary["test"]):
        heads = [f"severity {severity}" for severity in table.severities]
        rows = [
            [name, m, digits(table.chance), digits(table.clean), *(_cell(*cell, table.chance) for cell in cells)]
            for name, m, cells in table.rows
        ]
        yield f"{escape_markdown_line(table.metric)}\n"
        yield from _table([*("corruption", "modality", "chance", "clean"), *heads], rows)
        yield ""


def _cell(value: float | None, chance: float | None, usual: float | None) -> str:
    """A value, and the score of guessing if it differs from that on the clean split."""
    return digits(value) if value is None or chance == usual else f"{digits(value)} ({digits(chance)})"


def _groups(summary: Mapping[str, Any]) -> Iterator[str]:
    for table in group_tables(summary["groups"]):
        worst = "" if table.worst is None else f"; worst: {md(table.worst)}"
        yield f"{escape_markdown_line(table.metric)}, mean of the groups {digits(table.mean)}{worst}\n"
        rows = [[name, f"{count:,}", digits(value), digits(chance)] for name, count, value, chance in table.rows]
        yield from _table(["group", "rows", "value", "chance"], rows)
        yield ""


def _limits(summary: Mapping[str, Any], data: DataFacts, *, num_bad: int) -> Iterator[str]:
    num_rows = data.rows.get("train", 0)
    usable = f"{num_rows:,}" if data.usable in (None, num_rows) else f"{data.usable:,} of {num_rows:,}"
    yield f"- The model reads {md(', '.join(data.reads))}, and was trained on {usable} rows."
    if data.usable not in (None, num_rows):
        yield "- The other training rows have no input or no target that a task can use."
    yield from (f"- {md(sentence)}." for sentence in not_evaluated_sentences(summary["not_judged"]))
    train = data.filled.get("train")
    for name in data.reads if train else ():
        assert train is not None
        missing = data.rows["train"] - train.get(name, 0)
        if missing:
            yield f"- {missing:,} of the {data.rows['train']:,} training rows have no {md(name)}."
    yield "- The metrics are from one run with one seed."
    yield f"- Languages: {'only those of the data' if data.languages else NOT_STATED}."
    yield "- Licence of the data: " + (f"{md(data.license)}." if data.license else f"{NOT_STATED}.")
    if not summary["test"]:
        yield "- Not tested: there is no test split."
    if not summary["corruptions"]:
        yield "- Not tested: corrupted inputs."
    if not summary["groups"]:
        yield "- Not tested: groups of rows."
    if not any(is_of_subset(name) for name in summary["test"]):
        yield "- Not tested: missing modalities."
    if not any("calibration_error" in name for name in summary["test"]):
        yield "- Not measured: calibration."
    if num_bad:
        yield f"- {num_bad:,} rows could not be read and were skipped."


def _use(config: Mapping[str, Any]) -> Iterator[str]:
    yield "    python train.py mode=predict run_dir=RUN        # predictions.jsonl of the test split"
    yield "    python train.py mode=test run_dir=RUN           # the same metrics again"
    if any(str(task.get("_target_", "")).endswith(".Contrastive") for task in config["task"].values()):
        yield "    python train.py mode=predict run_dir=RUN predict.index=RUN/index"
        yield '    python train.py mode=search run_dir=RUN search.query="a text, or the name of a file"'
    yield "    python scripts/export.py RUN --out DIR          # for programs without mmtrain"
