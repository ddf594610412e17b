"""Modalities and targets that tasks need, and what to type if the data does not have them. Imports nothing heavy."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from mmtrain.config.compose import config_dir
from mmtrain.data.tables.columns import USUAL_NAMES, Column, find_columns, typed

# Keys by which a task names what it reads; a user's own task may have the one of mmtrain 0.1.0.
INPUT_KEYS = ("input", "reads")


@cache
def tasks_of_one_column(key: str) -> dict[str, str]:
    """The task for a single input or target, by the usual name of that column.

    Args:
        key: "target", or "modality".

    Returns:
        Of several tasks, a task that reads its own modality; otherwise the task with the shortest name.
    """
    results: dict[str, list[tuple[bool, int, str]]] = {}
    for path in sorted((config_dir() / "task").glob("*.yaml")):
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
        inputs = required_modalities(task) | {str(task[name]) for name in ("modality", "group_by") if name in task}
        targets = {str(task["target"])} if "target" in task else set()
        if len(inputs | targets) == 1:
            column = (targets if key == "target" else inputs) or {""}
            results.setdefault(column.pop(), []).append((reads_fused(task), len(path.stem), path.stem))
    return {column: min(tasks)[2] for column, tasks in results.items() if column in USUAL_NAMES}


def required_modalities(task: Mapping[str, Any]) -> set[str]:
    """Modalities that a task names."""
    return {str(m) for m in _named(task)} - {"fused"}


def reads_fused(task: Mapping[str, Any]) -> bool:
    """Whether a task reads the fused features."""
    return "fused" in _named(task)


def _named(task: Mapping[str, Any]) -> list[Any]:
    return [*(task[key] for key in INPUT_KEYS if key in task), *(task.get("modalities") or ())]


def tasks_without(tasks: Mapping[str, Any], target: str) -> str | None:
    """The override that removes tasks with this target; None if no task would remain."""
    left = [str(name) for name, task in tasks.items() if task.get("target") != target]
    return f"task=[{','.join(left)}]" if left else None


def faults_of_tasks(
    tasks: Mapping[str, Any],
    *,
    inputs: Sequence[str],
    targets: Collection[str],
    columns: Sequence[str],
    likely: Callable[[], Mapping[str, Column]],
    useless: Collection[str] = (),
) -> Iterator[tuple[str, str]]:
    """For each task whose modality or target is missing, return the key that names it, and the message.

    Args:
        tasks: configurations of tasks, by name.
        inputs: modalities in the data.
        targets: targets in the data.
        columns: columns of its tables.
        likely: what other columns seem to contain; called only for messages.
        useless: columns that nothing can be learned from.
    """
    missing_names = {str(name): sorted(required_modalities(task) - set(inputs)) for name, task in tasks.items()}
    without_target = {
        str(n): str(t["target"]) for n, t in tasks.items() if "target" in t and t["target"] not in targets
    }
    left = [str(name) for name in tasks if not missing_names[str(name)] and str(name) not in without_target]
    guesses = likely() if without_target or any(missing_names.values()) else {}
    other = [] if left else _alternative_tasks(inputs, [column for column in columns if column not in useless])
    leave = [f"remove what {{}} it: task=[{','.join(left)}]"] if left else [f"choose task=[{t}]" for t in other]
    for name, missing in missing_names.items():
        if missing:
            ways = _fixes(missing[0], guesses, [way.format("reads") for way in leave])
            pair = "modalities" in tasks[name] and len(inputs) > 1
            ways = [f"set task.{name}.modalities=[{','.join(inputs[:2])}]"] * pair + ways
            word = (
                "modalities"
                if missing[0] in (tasks[name].get("modalities") or ())
                else "input"
                if "input" in tasks[name]
                else "reads"
            )
            yield (
                f"task.{name}.{word}",
                f"task.{name}.{word}={missing[0]}: the data has only {', '.join(inputs)}; the columns are"
                f" {', '.join(columns)}\n    fix: {', or '.join(ways)}",
            )
    for name, target in without_target.items():
        available = [t for t in _alternative_tasks([], columns) if t not in tasks]  # such as labels instead of label
        ways = _fixes(target, guesses, [way.format("learns") for way in leave])
        ways += [f"learn another target: task=[{','.join([*left, *available])}]"] if left and available else []
        yield (
            f"task.{name}.target",
            f"task.{name}.target={target}: no training row has one; the columns are {', '.join(columns)}\n"
            f"    fix: {', or '.join(ways)}",
        )


def _fixes(name: str, likely: Mapping[str, Column], leave: list[str]) -> list[str]:
    """Fixes for a missing column. Naming a column comes first if one seems to contain it."""
    if name in likely:
        return [f"set {typed({name: likely[name]})}", *leave]
    return [*leave, f"set data.columns.{name}=NAME, if a column contains it"]


def _alternative_tasks(inputs: Sequence[str], columns: Sequence[str]) -> list[str]:
    """A task for the available columns, if none of the chosen tasks can be learned."""
    of_target, of_modality = tasks_of_one_column("target"), tasks_of_one_column("modality")
    matches = find_columns(columns, dict.fromkeys(of_target), where="")
    return [*(of_target[name] for name in matches), *(of_modality[m] for m in inputs if m in of_modality)][:1]
