"""Pairs to learn from by task=[dpo]: the sentence of a row, and one that is not right for it.

    python scripts/make_preferences.py RUN OUT by=COLUMN   # that of another row with the same value there
    python scripts/make_preferences.py RUN OUT             # what the run writes instead

RUN is the folder of a run of task=[captioning]. OUT gets its tables again, one a split, with a further column,
`rejected`, empty where there is no such sentence. What the run writes is what its best checkpoint does, decoded as its
configuration says. Nobody was asked: the pairs say that the table is right. Files are named by whole paths, so that
training on OUT wants data.confine=false.
"""

import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mmtrain.build import build_again
from mmtrain.data.columns import is_empty
from mmtrain.data.dataset import EvalSplit
from mmtrain.data.module import DataModule
from mmtrain.data.text import texts_of
from mmtrain.errors import ConfigError
from mmtrain.tasks.generation import Generation
from mmtrain.trained import Trained, load_trained

ROWS = 64  # of a batch


def main() -> int:
    """The exit status: 0, or 2 for what the user can mend."""
    columns = [a.removeprefix("by=") for a in sys.argv[1:] if a.startswith("by=")]
    places = [Path(a) for a in sys.argv[1:] if not a.startswith("by=")]
    if len(places) != 2 or len(columns) > 1:
        print(__doc__)
        return 2
    run, out = places
    try:
        trained = load_trained(run, build_again)
        name = task_of(trained)
        check_column(trained, columns)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    for split in trained.data.tables:
        table = trained.data.split(split)
        rows = list(others(trained, name, table, *columns) if columns else written(trained, name, table))
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{out / split}.jsonl: {len(rows)} rows, {sum(row['rejected'] is not None for row in rows)} pairs")
    return 0


def task_of(trained: Trained) -> str:
    """The name of the task of sentences."""
    names = [name for name, task in trained.lit.model.tasks.items() if isinstance(task, Generation)]
    if not names:
        raise ConfigError("the run writes no sentences\n    name a run of task=[captioning]")
    return names[0]


def check_column(trained: Trained, columns: list[str]) -> None:
    """Whether the tables have it."""
    for split, table in trained.data.tables.items():
        if lacking := set(columns) - set(table.column_names):
            raise ConfigError(f"by={lacking.pop()}, but {split} has the columns {', '.join(table.column_names)}")


def others(trained: Trained, name: str, split: EvalSplit, column: str) -> Iterator[dict[str, Any]]:
    """The rows of a split, each with the sentence of another one; which one follows from its number."""
    target = target_of(trained, name)
    texts = [texts_of(cells[trained.data.columns[target]]) for cells in split.table]
    alike: defaultdict[Any, list[str]] = defaultdict(list)
    for cells, own in zip(split.table, texts, strict=True):
        alike[cells[column]] += own[:1]
    for row, (cells, own) in enumerate(zip(split.table, texts, strict=True)):
        wrong = (
            [text for text in alike[cells[column]] if text not in own] if own and not is_empty(cells[column]) else []
        )
        yield found(trained.data, cells) | {"rejected": random.Random(row).choice(wrong) if wrong else None}


@torch.no_grad()
def written(trained: Trained, name: str, split: EvalSplit) -> Iterator[dict[str, Any]]:
    """The rows of a split, each with what the model writes, where that is not right."""
    task: Any = trained.lit.model.tasks[name]
    target = target_of(trained, name)
    size = len(split.table)
    for first in range(0, size, ROWS):
        at = range(first, min(first + ROWS, size))
        batch = trained.data.collate().batch(split.__getitems__([(0, row) for row in at]))
        said = task.rows(trained.lit.model.view(batch).predictions(name), batch)
        right = batch.references.get(target, [[]] * len(batch))
        for row, one, texts in zip(at, said, right, strict=True):
            wrong = one.get(target) if texts and one.get(target) not in texts else None
            yield found(trained.data, split.table[row]) | {"rejected": wrong or None}


def target_of(trained: Trained, name: str) -> str:
    """The target of that task."""
    task: Any = trained.lit.model.tasks[name]
    return str(task.targets[0])


def found(data: DataModule, cells: dict[str, Any]) -> dict[str, Any]:
    """The cells with whole paths."""
    files = {data.columns[m] for m, part in data.inputs.items() if part.kind not in ("text", "vector", "sequence")}
    whole = {c: str((data.folder / cells[c]).resolve()) for c in files if isinstance(c, str) and not is_empty(cells[c])}
    return dict(cells) | whole


if __name__ == "__main__":
    sys.exit(main())
