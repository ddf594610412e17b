"""Compares a resumed run with its checkpoint: every key that its weights depend on, and the rows of its data.

Keys that determine where and how fast it runs may differ (`FREE`), and its length, too (`LENGTH`), which is reported.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmtrain.config.moved import current_path, with_current_paths
from mmtrain.config.renamed import current_facts, current_keys_of_facts
from mmtrain.errors import ConfigError

IGNORED_KEYS = (
    *(
        "mode",
        "run_dir",
        "resume",
        "resume_allow",
        "init_from",
        "trust",
        "overrides",
        "hydra",
        "logger",
        "checkpoint",
        "test",
        "search",
    ),
    *(
        "trainer.accelerator",
        "trainer.devices",
        "trainer.num_nodes",
        "trainer.strategy",
        "trainer.accumulate_grad_batches",
    ),
    *(
        "trainer.log_every_n_steps",
        "trainer.max_time",
        "trainer.compile",
        "trainer.profile",
        "trainer.limit_test_batches",
    ),
    *("plan", "trial", "trainer.find_batch_size", "optimizer.fused"),
    *(
        "data.num_workers",
        "data.pin_memory",
        "data.eval_batch_size",
        "data.max_bad_fraction",
        "data.license",
        "data.languages",
    ),
)
# The file of each split can be elsewhere, as `data.root` can: its rows are compared.
_FILES = "mmtrain.data.sources.files.existing_folder"
_OF_FILES = tuple(f"data.{key}{split}" for key in ("", "source.") for split in ("train", "val", "test"))
LENGTH = ("trainer.max_epochs", "trainer.max_steps")
ROWS = "rows"  # prefix of the facts of the data: rows.train.columns.caption
IDS_OF_ROWS = "rows of the training split"  # the only fact of the data in checkpoints of earlier versions
_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_WHY = {"val": "best scores would be from two different splits", "test": "the final test would use other rows"}
_ROW_KEY = re.compile(
    r"rows\.([^.]+)\.((?:parts\.[^.]+\.)*)(count|order|shards|ids|columns|files)(?:\.(.+))?", re.DOTALL
)


def config_fingerprint(cfg: DictConfig, rows: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that determines the training of a run, by dotted key.

    Args:
        cfg: the resolved configuration.
        rows: facts of the rows by split; `DataModule.row_facts`.
    """
    facts = _leaves(OmegaConf.to_container(cfg, resolve=True))
    of_files = _OF_FILES if facts.get("data.source._target_") == _FILES else ()
    kept = {key: value for key, value in facts.items() if not _is_free(key) and key not in of_files}
    return kept | _leaves({ROWS: rows})


def facts_to_compare(
    before: Mapping[str, Any], now: Mapping[str, Any], *, ids: Callable[[], str]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The facts of a checkpoint and of this run that can be compared.

    Args:
        before: the facts in the checkpoint. An earlier version stored only ids of the training split.
        now: the facts of this run.
        ids: returns what an earlier version would store for the rows; `DataModule.id_digest`.

    Returns:
        Both, with the same kind of facts of the rows, and notes about the comparison.
    """
    before = current_facts({key: _of_today(key, value) for key, value in before.items()})
    if IDS_OF_ROWS not in before:
        return before, dict(now), []
    key = f"{ROWS}.train.ids"
    left = {k: v for k, v in before.items() if k != IDS_OF_ROWS} | {key: before[IDS_OF_ROWS]}
    right = {k: v for k, v in now.items() if not k.startswith(f"{ROWS}.")} | {key: ids()}
    note = (
        "the checkpoint has no digest of the cells of its data, because an earlier version of mmtrain wrote it:"
        " only the number of training rows and some ids are compared"
    )
    return left, right, [note]


def _of_today(key: str, value: Any) -> Any:
    """A fact of an earlier version, with current paths of components."""
    if isinstance(value, list | dict):
        return with_current_paths(value)
    return current_path(value) if key.endswith("._target_") and isinstance(value, str) else value


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Values by dotted key. An empty mapping is a value."""
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    results: dict[str, Any] = {}
    for key, value in node.items():
        results |= _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return results


def _is_free(key: str) -> bool:
    """Whether a key may differ. Folders of the data may, because clusters give each job another; rows are compared.

    The run folder may differ, too, because it may have been moved.
    """
    parts = key.split(".")
    return any(key == free or key.startswith(f"{free}.") for free in IGNORED_KEYS) or (
        parts[-1] == "run_dir" or (parts[0] == "data" and parts[-1] in ("root", "cache"))
    )


def check_same_run(
    before: Mapping[str, Any], now: Mapping[str, Any], path: Path, *, allow: Sequence[str] = ()
) -> list[str]:
    """Reject a run that differs from its checkpoint.

    Args:
        before: the facts in the checkpoint.
        now: the facts of this run.
        path: path of the checkpoint.
        allow: keys, or prefixes of keys, that may differ.

    Returns:
        Allowed differences, one line each.

    Raises:
        ConfigError: with each value that differs, and how to allow it.
    """
    allow = current_keys_of_facts(allow, now)
    # a null value is like a missing one of an earlier version
    differing = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
    passed = [key for key in differing if key in LENGTH or any(key == a or key.startswith(f"{a}.") for a in allow)]
    refused = [key for key in differing if key not in passed]
    if not refused:
        longer = [key for key in passed if key in LENGTH]
        allowed = _described([key for key in passed if key not in LENGTH], before, now)
        return [*_described(longer, before, now), *(f"{line}; allowed by resume_allow" for line in allowed)]
    lines = "\n".join(f"    {line}" for line in _described(refused, before, now))
    raise ConfigError(
        f"{path}: cannot be resumed exactly\n{lines}\n    fix: restore these values, allow them with"
        f" 'resume_allow=[{','.join(_allowing(refused))}]', or start a new run with init_from={path}"
    )


def _allowing(keys: Sequence[str]) -> list[str]:
    """Entries of `resume_allow` for these differences: keys, and splits, or only the files of a split."""
    of_split: dict[str, set[str]] = {}
    for key in keys:
        if match := _ROW_KEY.fullmatch(key):
            of_split.setdefault(match[1], set()).add("files" if match[3] == "files" and not match[2] else "rows")
    knobs = [key for key in keys if not _ROW_KEY.fullmatch(key)]
    return knobs + [f"{ROWS}.{split}{'.files' if kinds == {'files'} else ''}" for split, kinds in of_split.items()]


def _described(keys: Sequence[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The differences: one line for each key, and one for each split of the data."""
    of_split: dict[str, list[re.Match[str]]] = {}
    for key in keys:
        match = _ROW_KEY.fullmatch(key)
        if match is None:
            yield f"{key} was {before.get(key, 'absent')} and is {now.get(key, 'absent')} now"
        else:
            of_split.setdefault(match[1], []).append(match)
    for split, result in of_split.items():
        why = f" ({_WHY[split]})" if split in _WHY else ""
        what = "; ".join(_described_rows(split, result, before, now))
        yield f"rows of the {_SPLITS.get(split, split)} split: {what}{why}"


def _described_rows(
    split: str, row_matches: Sequence[re.Match[str]], before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[str]:
    """Differences of a split, or of a part of a mixture in it."""
    count = f"{ROWS}.{split}.count"
    if (count in before) != (count in now):
        yield f"{_rows(before.get(count))} before, {_rows(now.get(count))} now"
        return
    of_part: dict[str, list[re.Match[str]]] = {}
    for match in row_matches:
        of_part.setdefault(match[2], []).append(match)
    for part, matches in of_part.items():
        whose = "".join(f"part {name}: " for name in part.removesuffix(".").split(".")[1::2])
        kinds = {match[3]: match[0] for match in matches}
        pair = {kind: (before.get(key), now.get(key)) for kind, key in kinds.items()}
        if "count" in kinds:
            yield f"{whose}{_rows(pair['count'][0])} before, {_rows(pair['count'][1])} now"
            continue  # all columns differ then
        if "ids" in kinds:
            yield f"{whose}was {pair['ids'][0]} and is {pair['ids'][1]} now"
        if "order" in kinds:
            yield f"{whose}the parts were {pair['order'][0]} and are {pair['order'][1]} now"
        if "shards" in kinds:
            yield f"{whose}names, sizes or samples of the shards differ"
        columns = [match[4] for match in matches if match[3] == "columns"]
        if columns:
            yield f"{whose}{_columns(columns)} differ{'s' if len(columns) == 1 else ''}"
        for match in matches:
            if match[3] == "files" and match[4] not in columns:
                was, now_is = before.get(match[0], "none"), now.get(match[0], "none")
                yield f"{whose}files of the column {match[4]} differ: {was} before, {now_is} now"


def _columns(names: Sequence[str]) -> str:
    return f"the column{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _rows(count: int | None) -> str:
    return "no such rows" if count is None else f"{count} row{'' if count == 1 else 's'}"


def changed_optimizer_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The options of the optimizer that differ from those in the checkpoint, such as weight_decay."""
    of_optimizer = [key for key in now if key.startswith("optimizer.") and now[key] != before.get(key)]
    return [key.removeprefix("optimizer.") for key in of_optimizer]
