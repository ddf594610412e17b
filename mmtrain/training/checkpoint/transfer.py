"""Loads weights of another run: everything that fits, even if sizes, words and classes have changed.

Rows of words or classes are matched by name, because their indices differ between runs. Learned positions are
interpolated. Adapters of `peft` are applied to the base weights.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rich.table import Table
from torch import Tensor, nn

from mmtrain.errors import ConfigError
from mmtrain.io.console import plain_text
from mmtrain.layers.pretrained import resized_grid, resized_line
from mmtrain.tasks.task import InitializesPolicy

Names = Mapping[str, Sequence[str]]  # by "inputs.text" or "targets.label": words or classes in their order


@dataclass(frozen=True)
class MatchedWeight:
    """A weight for this model, and how it was changed."""

    weight: Tensor
    how: str = ""


def load_pretrained(
    checkpoint: dict[str, Any], module: nn.Module, path: Path, *, names: Names, pictures: Collection[str]
) -> Table:
    """Copy everything that fits into a model.

    Args:
        checkpoint: of any run of mmtrain.
        module: the LightningModule, which is changed in place.
        path: path of the checkpoint, for messages.
        names: words and classes of this run.
        pictures: modalities whose learned positions are a grid.

    Returns:
        A table of loaded, resized, new and unused weights, and why.

    Raises:
        ConfigError: if nothing fits.
    """
    mine = module.state_dict()
    theirs = checkpoint["state_dict"]
    plain = {_bare(name): name for name in theirs}
    former = _former_names(module, mine, plain)
    rows = _rows_by_name(module, names, checkpoint["mmtrain"].get("names", {}))
    results: dict[str, MatchedWeight] = {}
    for name, weight in mine.items():
        other = plain.get(former[name])
        if other is not None and (taken := _fitted(name, theirs[other], weight, rows, pictures)) is not None:
            results[name] = taken
    if not results:
        raise ConfigError(
            f"init_from={path}: no weight has the name and shape of one in this model\n"
            f"    fix: name another checkpoint; the command of this one is: {checkpoint['mmtrain']['command']}"
        )
    module.load_state_dict({n: f.weight for n, f in results.items()}, strict=False)
    used = {plain[former[name]] for name in results}
    table = Table(title=plain_text(f"weights from {path}"), title_justify="left", title_style="bold")
    for column in ("component", "loaded", "resized", "new here", "not used", "why"):
        table.add_column(column, justify="left" if column in ("part", "why") else "right")
    for part in dict.fromkeys(_part(n) for n in [*mine, *theirs]):
        own = {n: f for n, f in results.items() if _part(n) == part}
        new = [n for n in mine if _part(n) == part and n not in results]
        unused = [n for n in theirs if _part(n) == part and n not in used]
        changed = [f for f in own.values() if f.how]
        counts = [len(own) - len(changed), len(changed), len(new), len(unused)]
        if any(counts):  # without components whose weights another one has loaded
            table.add_row(part, *map(str, counts), plain_text(_why(mine, theirs, changed, new, unused)))
    return table


def _former_names(module: nn.Module, mine: Mapping[str, Tensor], theirs: Collection[str]) -> dict[str, str]:
    """Names of weights in the checkpoint by their names here. A task may continue the training of another one."""
    other = [
        (f"{name}.policy.", f"{name.rpartition('.')[0]}.{part.init_policy_from}.{inside}")
        for name, part in module.named_modules()
        if isinstance(part, InitializesPolicy)
        for inside in ("", "policy.")  # it may itself continue another one
    ]
    names = {}
    for name in mine:
        names[name] = _bare(name)
        for here, other_prefix in other:
            if name.startswith(here) and names[name] not in theirs:
                names[name] = _bare(other_prefix + name.removeprefix(here))
    return names


def _fitted(
    name: str, theirs: Tensor, mine: Tensor, rows: Mapping[str, tuple[Sequence[str], Sequence[str]]], pictures: Any
) -> MatchedWeight | None:
    """The weight of the checkpoint in the shape of the model; None if it does not fit."""
    if name in rows:
        return _by_name(theirs, mine, *rows[name])
    if theirs.shape == mine.shape:
        return MatchedWeight(theirs)
    last = name.rpartition("pos_embed")[2] if "pos_embed" in name else None
    if last == "" and theirs.ndim == mine.ndim == 3 and theirs.shape[2] == mine.shape[2]:
        return _positions(name, theirs, mine, pictures)
    if name.endswith("position_embeddings.weight") and theirs.shape[1:] == mine.shape[1:]:
        resized = resized_line(theirs[None], len(mine))[0]
        return MatchedWeight(resized, f"{len(theirs)} positions to {len(mine)}")
    return None


def _positions(name: str, theirs: Tensor, mine: Tensor, pictures: Collection[str]) -> MatchedWeight | None:
    before, wanted = theirs.shape[1], mine.shape[1]
    how = f"{before} positions to {wanted}"
    words = name.removeprefix("model.encoders.").split(".")
    if words[0] not in pictures and "image" not in words:
        return MatchedWeight(resized_line(theirs, wanted), how)
    for prefix in (1, 0):  # with and without a class token
        side = round((wanted - prefix) ** 0.5)
        if side * side == wanted - prefix and round((before - prefix) ** 0.5) ** 2 == before - prefix:
            return MatchedWeight(resized_grid(theirs, (side, side), num_prefix=prefix), how)
    return None


def _by_name(theirs: Tensor, mine: Tensor, before: Sequence[str], now: Sequence[str]) -> MatchedWeight | None:
    """Copy each row from the position of its name. New names keep their initialization."""
    if theirs.shape[1:] != mine.shape[1:]:
        return None
    place = {name: row for row, name in enumerate(before) if row < len(theirs)}
    known = [(row, place[name]) for row, name in enumerate(now) if name in place and row < len(mine)]
    if not known:
        return None
    to, of = torch.tensor(known).unbind(dim=1)
    weight = mine.clone()
    weight[to] = theirs[of].to(weight.dtype)
    return MatchedWeight(weight, f"{len(known)} of {len(now)} rows by name")


def _rows_by_name(module: nn.Module, names: Names, before: Names) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
    """Weights whose rows are words or classes that have changed: (before, now) by the weight's name."""
    results: dict[str, tuple[Sequence[str], Sequence[str]]] = {}
    for key, now in names.items():
        then = before.get(key)
        if then is None or list(then) == list(now):
            continue
        place, _, name = key.partition(".")
        for weight in _embeddings(module, name) if place == "inputs" else _heads(module, name, len(now)):
            results[weight] = (then, now)
    return results


def _embeddings(module: nn.Module, modality: str) -> list[str]:
    """The word embedding of an encoder: its largest embedding table."""
    inside = f"model.encoders.{modality}."
    tables = {n: m.num_embeddings for n, m in module.named_modules() if n.startswith(inside) and _is_table(m)}
    return [f"{max(tables, key=lambda n: tables[n])}.weight"] if tables else []


def _is_table(module: nn.Module) -> Any:
    return isinstance(module, nn.Embedding)


def _heads(module: nn.Module, target: str, count: int) -> list[str]:
    """The last linear layers of the tasks with a target."""
    tasks = cast(Any, module).model.named_tasks()
    names = [f"model.tasks.{name}." for name, task in tasks.items() if target in task.targets]
    heads = [
        n
        for n, m in module.named_modules()
        if n.startswith(tuple(names)) and isinstance(m, nn.Linear) and m.out_features == count
    ]
    return [f"{n}.{part}" for n in (heads if names else []) for part in ("weight", "bias")]


def _bare(name: str) -> str:
    """The name of a weight without the prefixes of `peft`."""
    return name.replace(".base_layer.", ".")


def _part(name: str) -> str:
    """The component that a weight belongs to: encoders.image, fusion, tasks.contrastive, ..."""
    words = name.removeprefix("model.").split(".")
    return ".".join(words[:2]) if words[0] in ("encoders", "tasks") else words[0]


def _why(
    mine: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    changed: list[MatchedWeight],
    new: list[str],
    unused: list[str],
) -> str:
    other_shape = [n for n in new if n in theirs and theirs[n].shape != mine[n].shape]
    if other_shape:
        name = other_shape[0]
        short = name.removeprefix(f"model.{_part(name)}.")
        return f"{short} is {tuple(theirs[name].shape)} there, {tuple(mine[name].shape)} here"
    if any(n in theirs for n in new):
        return "other words or classes"
    adapters = [n for n in unused if "lora_" in n or "hada_" in n or "lokr_" in n or "ia3_" in n]
    if adapters:
        return "adapters: add the same peft here, or export first"
    if new:
        return "not in the checkpoint" if not unused else "other names"
    if unused:
        return "not in this model"
    return "; ".join(dict.fromkeys(result.how for result in changed))
