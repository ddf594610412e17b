"""What tasks read and learn of the data, and what to type when it is not there. Nothing heavy is imported."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from mmtrain.config.compose import config_dir
from mmtrain.data.tables.columns import USUAL_NAMES, Column, find_columns, typed


@cache
def tasks_of_one_column(key: str) -> dict[str, str]:
    """The task that needs one input or target and nothing else, by the usual name of that column.

    Args:
        key: "target", or "modality".

    Returns:
        Of several tasks, one that reads its own modality, else the one with the shortest name.
    """
    found: dict[str, list[tuple[bool, int, str]]] = {}
    for path in sorted((config_dir() / "task").glob("*.yaml")):
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
        inputs = needed_by(task) | {str(task[name]) for name in ("modality", "group_by") if name in task}
        targets = {str(task["target"])} if "target" in task else set()
        if len(inputs | targets) == 1:
            column = (targets if key == "target" else inputs) or {""}
            found.setdefault(column.pop(), []).append((reads_fused(task), len(path.stem), path.stem))
    return {column: min(tasks)[2] for column, tasks in found.items() if column in USUAL_NAMES}


def needed_by(task: Mapping[str, Any]) -> set[str]:
    """The modalities that a task names."""
    return {str(m) for m in _named(task)} - {"fused"}


def reads_fused(task: Mapping[str, Any]) -> bool:
    """Whether a task reads what the fusion makes."""
    return "fused" in _named(task)


def _named(task: Mapping[str, Any]) -> list[Any]:
    return [*([task["reads"]] if "reads" in task else []), *(task.get("modalities") or ())]


def tasks_without(tasks: Mapping[str, Any], target: str) -> str | None:
    """What to type to learn no such target; None when nothing would be left to learn."""
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
    """For each task that lacks something, the key that names it, and the message.

    Args:
        tasks: by name, their configurations.
        inputs: the modalities that the data has.
        targets: that it has.
        columns: of its tables.
        likely: what other columns seem to hold; asked only for messages.
        useless: columns that nothing can be learned from.
    """
    lacking = {str(name): sorted(needed_by(task) - set(inputs)) for name, task in tasks.items()}
    blind = {str(n): str(t["target"]) for n, t in tasks.items() if "target" in t and t["target"] not in targets}
    left = [str(name) for name in tasks if not lacking[str(name)] and str(name) not in blind]
    seems = likely() if blind or any(lacking.values()) else {}
    other = [] if left else _instead(inputs, [column for column in columns if column not in useless])
    leave = [f"leave out what {{}} it: task=[{','.join(left)}]"] if left else [f"choose task=[{t}]" for t in other]
    for name, missing in lacking.items():
        if missing:
            ways = _ways(missing[0], seems, [way.format("reads") for way in leave])
            pair = "modalities" in tasks[name] and len(inputs) > 1
            ways = [f"set task.{name}.modalities=[{','.join(inputs[:2])}]"] * pair + ways
            word = "modalities" if missing[0] in (tasks[name].get("modalities") or ()) else "reads"
            yield (
                f"task.{name}.{word}",
                f"task.{name} reads {missing[0]}, but the data has {', '.join(inputs)}; the columns are"
                f" {', '.join(columns)}\n    {', or '.join(ways)}",
            )
    for name, target in blind.items():
        there = [t for t in _instead([], columns) if t not in tasks]  # such as labels in place of a label
        ways = _ways(target, seems, [way.format("learns") for way in leave])
        ways += [f"learn what is there: task=[{','.join([*left, *there])}]"] if left and there else []
        yield (
            f"task.{name}.target",
            f"task.{name}.target = {target}, but no row to train on has one; the columns are {', '.join(columns)}\n"
            f"    {', or '.join(ways)}",
        )


def _ways(name: str, likely: Mapping[str, Column], leave: list[str]) -> list[str]:
    """To name its column comes first where there seems to be one."""
    if name in likely:
        return [f"set {typed({name: likely[name]})}", *leave]
    return [*leave, f"set data.columns.{name}=NAME, if a column holds it"]


def _instead(inputs: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The task of what there is, when none of those that were chosen can be learned."""
    of_target, of_modality = tasks_of_one_column("target"), tasks_of_one_column("modality")
    there = find_columns(columns, dict.fromkeys(of_target), where="")
    return [*(of_target[name] for name in there), *(of_modality[m] for m in inputs if m in of_modality)][:1]
