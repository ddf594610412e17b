"""The tables of a folder against a configuration, by their first rows: the faults of data beside those of keys."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmtrain.composed import Composed
from mmtrain.errors import ConfigError

_FOLDER = "mmtrain.data.files.existing_folder"
_SPLIT = "mmtrain.data.splits.Split"


def rule_tables(run: Composed) -> Iterator[str]:
    """The tables of a folder have the columns that are read and learned, and cells that can be that."""
    root = Path(str(run.get("data.root"))).expanduser()
    if run.get("data.source._target_") != _FOLDER or run.get("data.root") is None or not root.is_dir():
        return  # of a folder that is none rule_files says it
    from mmtrain.data.heads import heads_of  # it imports numpy, and most runs have other data

    split = _split(run)
    if split is None or not isinstance(run.get("data.columns"), DictConfig):
        return  # other rules, or their own constructors, say what is wrong with those
    try:
        found = heads_of(root, split)
        if found is not None:
            yield from _faults(run, found)
    except ConfigError as error:
        yield str(error)


def _split(run: Composed) -> Any:
    from mmtrain.data.splits import Split

    node = OmegaConf.to_container(run.get("data.split")) if OmegaConf.is_dict(run.get("data.split")) else {}
    assert isinstance(node, dict)
    if node.pop("_target_", None) != _SPLIT:
        return None
    try:
        return Split(**{str(key): value for key, value in node.items()})
    except (TypeError, ValueError):
        return None


def _faults(run: Composed, found: Any) -> Iterator[str]:
    from mmtrain.data.columns import faults_of_columns, find_columns, no_input
    from mmtrain.data.likely import likely_in
    from mmtrain.data.table_checks import no_table

    training = run.get("mode") in ("fit", "plan")
    if training and "train" not in found.splits:
        raise no_table(found, "train")
    wanted, kinds = _wanted(run)
    split, first = next(iter(found.splits.items()))
    where, there = found.names[split], first.column_names
    likely = likely_in(first, wanted, kinds)
    wrong = faults_of_columns(there, wanted, where=where, likely=lambda: likely)
    yield from (_located(run, fault, f"data.columns.{name}") for name, fault in wrong.items())
    columns = find_columns(there, {n: c for n, c in wanted.items() if n not in wrong}, where=where)
    inputs = [name for name in columns if name in run.cfg.data.inputs]
    if not inputs and not wrong:
        yield str(no_input([n for n in wanted if n in run.cfg.data.inputs], there, where=where, likely=likely))
    if training and run.get("resume") is None:  # a run that goes on keeps what it has learned
        yield from _faults_of_training(run, found, columns, kinds)
        yield from _faults_of_tasks(run, inputs, columns, there, likely) if inputs and not wrong else ()


def _faults_of_tasks(
    run: Composed, inputs: list[str], columns: Mapping[str, Any], there: list[str], likely: Mapping[str, Any]
) -> Iterator[str]:
    from mmtrain.reads import faults_of_tasks

    known = [m for m in inputs if m in run.cfg.encoder]
    targets = [name for name in columns if name not in inputs]
    for key, fault in faults_of_tasks(_tasks(run), inputs=known, targets=targets, columns=there, likely=lambda: likely):
        yield _located(run, fault, key)


def _faults_of_training(
    run: Composed, found: Any, columns: Mapping[str, Any], kinds: Mapping[str, str | None]
) -> Iterator[str]:
    """What the rows say; what all rows must say, where all are known."""
    from mmtrain.data.class_checks import check_classes
    from mmtrain.data.columns import name_of
    from mmtrain.data.row_checks import check_rows
    from mmtrain.data.table_checks import check_size, faults_of_cells
    from mmtrain.reads import tasks_without

    table, where, folder = found.splits["train"], found.names["train"], found.folder
    known = {name: column for name, column in columns.items() if set(_parts(column)) <= set(table.column_names)}
    inputs = [name for name in known if name in run.cfg.data.inputs]
    facts = {"where": where, "folder": folder, "is_whole": table.is_whole}
    for name, fault in faults_of_cells(table, known, kinds, inputs=inputs, **facts):
        yield _located(run, fault, f"data.columns.{name}")
    paths = {name: known[name] for name in inputs if kinds[name] not in ("text", "vector")}
    for split, head in found.splits.items():
        yield from _said(
            run, "data", check_rows, head, found.names[split], paths, folder, confine=run.get("data.confine") is True
        )
    if not table.is_whole:
        return
    if isinstance(run.get("data.batch_size"), int):
        yield from _said(run, "data.batch_size", check_size, len(table), run.cfg.data.batch_size, folder)
    others = [s for s, head in found.splits.items() if s != "train" and head.is_whole]
    for name in [name for name in known if kinds[name] == "class" and len(others) == len(found.splits) - 1]:
        column = known[name]
        counts = Counter(c for cell in table[column] if (c := name_of(cell)) is not None)
        yield from _said(
            run,
            f"data.columns.{name}",
            check_classes,
            *(name, sorted(counts), counts.total()),
            column=column,
            where=where,
            others={found.names[s]: found.splits[s][column] for s in others},
            without=tasks_without(_tasks(run), name),
        )


def _parts(column: str | list[str]) -> list[str]:
    return [column] if isinstance(column, str) else list(column)


def _said(run: Composed, key: str, check: Callable[..., Any], *facts: Any, **named: Any) -> Iterator[str]:
    """What a check refuses."""
    try:
        check(*facts, **named)
    except ConfigError as error:
        yield _located(run, str(error), key)


def _wanted(run: Composed) -> tuple[dict[str, Any], Mapping[str, str | None]]:
    """The columns of what tasks read and learn, as they are named, and how each is read."""
    from mmtrain.data.head_checks import READ_AS
    from mmtrain.reads import needed_by

    tasks = list(_tasks(run).values())
    read = {m for task in tasks for m in needed_by(task)}
    if any(task.get("reads") == "fused" for task in tasks):
        read |= set(map(str, run.cfg.encoder))
    learned = {task.target for task in tasks if "target" in task}
    inputs = [str(m) for m in run.cfg.data.inputs if m in read]
    targets = [str(t) for t in run.cfg.data.targets if t in learned]
    named = OmegaConf.to_container(run.cfg.data.columns, resolve=True)
    assert isinstance(named, dict)
    places = {**dict.fromkeys(inputs, "inputs"), **dict.fromkeys(targets, "targets")}
    kinds = {n: READ_AS.get(str(run.get(f"data.{place}.{n}._target_"))) for n, place in places.items()}
    return {name: named.get(name) for name in places}, kinds


def _tasks(run: Composed) -> dict[str, Any]:
    return {str(name): task for name, task in run.cfg.task.items() if isinstance(task, DictConfig)}


def _located(run: Composed, fault: str, key: str) -> str:
    """A fault with the override that has to do with it, if one has."""
    where = run.where(key)
    what, *mend = fault.splitlines()
    return "\n".join([f"{what} ({where})" if where.startswith("override ") else what, *mend])
