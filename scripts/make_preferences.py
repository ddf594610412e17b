"""Create pairs for task=[dpo]: a correct sentence for each row, and a wrong or worse one.

    python scripts/make_preferences.py RUN OUT by=COLUMN   # rejected: that of another row with the same value there
    python scripts/make_preferences.py RUN OUT             # rejected: the output of the run
    python scripts/make_preferences.py RUN OUT draws=8 margin=0.3 reward=cider   # the best and the worst of 8 samples
    python scripts/make_preferences.py RUN OUT trust=mine   # your own run with classes of mine.py

RUN is the folder of a run with task=[captioning] or task=[language_model]. OUT gets its tables, one per split, with an
additional column `rejected`, which is empty if there is no such sentence. With draws there is also `chosen`. Both are
empty if the best sample is not better than the worst by margin, according to a reward of task=[scst]. The output of the
run is that of its best checkpoint with the decoding of its configuration. No person has judged the pairs: the table is
assumed to be right. Files have absolute paths, so training on OUT needs data.restrict_paths=false.
"""

import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmtrain.build import rebuild_from_run
from mmtrain.config.instantiate import add_working_folder
from mmtrain.data.dataset import EvalSplit
from mmtrain.data.module import DataModule
from mmtrain.data.tables.columns import cell_of, is_empty
from mmtrain.data.tables.paths import checked_path
from mmtrain.data.tables.texts import texts_of
from mmtrain.errors import ConfigError, SampleError
from mmtrain.io.escape import print_escaped
from mmtrain.io.run_files import write_json_lines
from mmtrain.metrics.rewards import Reward, reward_of
from mmtrain.tasks.generation import Generation
from mmtrain.tasks.language_model import LanguageModel
from mmtrain.tasks.policy import plain_samples, writer_of
from mmtrain.training.checkpoint.load_run import LoadedRun, load_run
from mmtrain.types import Batch

ROWS = 64  # rows of a batch
OPTIONS = ("by", "draws", "margin", "reward", "trust")
Making = Callable[[LoadedRun, str, EvalSplit], Iterator[dict[str, Any]]]


def main() -> int:
    """Return the exit status: 0, or 2 for errors that the user can fix."""
    options = dict(a.split("=", 1) for a in sys.argv[1:] if a.split("=")[0] in OPTIONS and "=" in a)
    places = [Path(a) for a in sys.argv[1:] if a.split("=")[0] not in OPTIONS]
    if len(places) != 2 or {"by", "draws"} <= set(options):
        print(__doc__)
        return 2
    run, out = places
    trust = options["trust"].split(",") if "trust" in options else []
    if trust:
        add_working_folder(run)
    try:
        trained = load_run(run, rebuild_from_run, trust=trust)
        name = task_of(trained)
        making = making_of(trained, name, options)
        for split in trained.data.tables:
            rows = list(making(trained, name, trained.data.split(split)))
            write_json_lines(out / f"{split}.jsonl", rows)
            print(f"{out / split}.jsonl: {len(rows)} rows, {sum(row['rejected'] is not None for row in rows)} pairs")
    except ConfigError as error:
        print_escaped(error, stderr=True)
        return 2
    return 0


def making_of(trained: LoadedRun, name: str, options: dict[str, str]) -> Making:
    """The function that creates the rows of a split, according to the options."""
    if "by" in options:
        if not isinstance(trained.data.columns[target_of(trained, name)], str):
            raise ConfigError("by=COLUMN: only for a target of one column\n    fix: set draws=8")
        check_column(trained, [options["by"]])
        return partial(others, column=options["by"])
    if "draws" not in options:
        return written
    try:
        number, margin = int(options["draws"]), float(options.get("margin", "0"))
        reward = reward_for(trained, name, options.get("reward", "cider"))
    except ValueError as error:
        raise ConfigError(f"{error}\n    fix: set draws=8 margin=0.3 reward=cider, for example") from error
    if number < 2:
        raise ConfigError(f"draws={number}: nothing to compare\n    fix: set draws=8")
    return partial(drawn, number=number, margin=margin, reward=reward)


def reward_for(trained: LoadedRun, name: str, reward: str) -> Reward:
    """The reward of sentences, with word weights from the training rows."""
    writer, data = writer_of(trained.lit.model.tasks[name]), trained.data
    target = writer.targets[0]
    train = data.tables.get("train", [])
    cells = (cell_of(row, data.columns[target]) for row in train)
    sentences = [data.targets[target].references(cell) for cell in cells if data.targets[target].load(cell) is not None]
    return reward_of(reward, sentences=[right for right in sentences if right], tokenize=writer.tokenize)


@torch.no_grad()
def drawn(
    trained: LoadedRun, name: str, split: EvalSplit, *, number: int, margin: float, reward: Reward
) -> Iterator[dict[str, Any]]:
    """The rows of a split, each with the best and the worst of the model's samples, if they differ enough."""
    writer: Any = writer_of(trained.lit.model.tasks[name])
    for batch, at in batches(trained, split):
        rows = writer.answerable(batch).nonzero().squeeze(1)
        each = torch.arange(len(rows)).repeat_interleave(number)
        seeds = (batch.rows[rows] * number)[each] + torch.arange(number).repeat(len(rows))
        prompts = writer.prompts(trained.lit.model.view(batch)).take(rows).take(each)
        ids = writer.generate(prompts, seeds, plain_samples(writer.decoding)).tolist()
        pairs: dict[int, tuple[str, str]] = {}
        for place, (row, right) in enumerate(zip(rows.tolist(), writer.right(batch, rows), strict=True)):
            said = [writer.sentence(one) for one in ids[place * number : (place + 1) * number]]
            worth = {one: reward(one, right) for one in said if one}
            best, worst = max(worth, key=worth.__getitem__, default=""), min(worth, key=worth.__getitem__, default="")
            if best != worst and worth[best] - worth[worst] >= margin and worth[best] > worth[worst]:
                pairs[row] = best, worst
        for row, number_of_row in enumerate(at):
            chosen, rejected = pairs.get(row, (None, None))
            yield found(trained.data, split.table[number_of_row]) | {"chosen": chosen, "rejected": rejected}


def batches(trained: LoadedRun, split: EvalSplit) -> Iterator[tuple[Batch, range]]:
    """The rows of a split in order, with their indices."""
    size = len(split.table)
    for first in range(0, size, ROWS):
        at = range(first, min(first + ROWS, size))
        yield trained.data.collate().batch(split.__getitems__([(0, row) for row in at])), at


def task_of(trained: LoadedRun) -> str:
    """The name of the task that generates sentences."""
    tasks = trained.lit.model.tasks.items()
    names = [name for name, task in tasks if isinstance(writer_of(task), Generation | LanguageModel)]
    if not names:
        raise ConfigError(
            "the run generates no text\n    fix: name a run of task=[captioning] or task=[language_model]"
        )
    return names[0]


def check_column(trained: LoadedRun, columns: list[str]) -> None:
    """Check that the tables have this column."""
    for split, table in trained.data.tables.items():
        if missing := set(columns) - set(table.column_names):
            raise ConfigError(f"by={missing.pop()}: {split} has the columns {', '.join(table.column_names)}")


def others(trained: LoadedRun, name: str, split: EvalSplit, column: str) -> Iterator[dict[str, Any]]:
    """The rows of a split, each with the sentence of another row, which is determined by its index."""
    target = target_of(trained, name)
    texts = [texts_of(cells[trained.data.columns[target]]) for cells in split.table]
    similar: defaultdict[Any, list[str]] = defaultdict(list)
    for cells, own in zip(split.table, texts, strict=True):
        similar[cells[column]] += own[:1]
    for row, (cells, own) in enumerate(zip(split.table, texts, strict=True)):
        wrong = (
            [text for text in similar[cells[column]] if text not in own] if own and not is_empty(cells[column]) else []
        )
        yield found(trained.data, cells) | {"rejected": random.Random(row).choice(wrong) if wrong else None}


@torch.no_grad()
def written(trained: LoadedRun, name: str, split: EvalSplit) -> Iterator[dict[str, Any]]:
    """The rows of a split, each with the output of the model if it is not correct."""
    task: Any = trained.lit.model.tasks[name]
    target = target_of(trained, name)
    for batch, at in batches(trained, split):
        predictions = task.rows(trained.lit.model.view(batch).predictions(name), batch)
        right = batch.references.get(target, [[]] * len(batch))
        for row, one, texts in zip(at, predictions, right, strict=True):
            wrong = one.get(target) if texts and one.get(target) not in texts else None
            yield found(trained.data, split.table[row]) | {"rejected": wrong or None}


def target_of(trained: LoadedRun, name: str) -> str:
    """The target of that task."""
    task: Any = trained.lit.model.tasks[name]
    return str(task.targets[0])


def found(data: DataModule, cells: dict[str, Any]) -> dict[str, Any]:
    """The cells with absolute paths. Files outside of the data folder are omitted."""
    files = {data.columns[m] for m, part in data.inputs.items() if part.kind not in ("text", "vector", "sequence")}
    available = [c for c in files if isinstance(c, str) and not is_empty(cells[c])]
    return dict(cells) | {c: whole_path(data.folder, cells[c]) for c in available}


def whole_path(folder: Path, path: str) -> str | None:
    """A path for the new table; None if it leads out of the data folder."""
    try:
        return str(checked_path(folder, path).resolve())
    except SampleError:
        return None


if __name__ == "__main__":
    sys.exit(main())
