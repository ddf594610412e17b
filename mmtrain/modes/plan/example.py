"""A batch whose sequences are as long as the longest in training."""

from functools import partial
from typing import Any

from torch import Tensor

from mmtrain.data.dataset import Collate, TrainSplit
from mmtrain.data.module import DataModule
from mmtrain.data.protocols import InputKind
from mmtrain.data.tables.columns import is_empty
from mmtrain.data.tables.sample_errors import read_or
from mmtrain.data.tables.tables import readable_cell, rows_at
from mmtrain.errors import ConfigError, SampleError
from mmtrain.io.escape import one_line
from mmtrain.types import Batch, Sample, TokenTarget

NUM_READ = 32  # decoded rows
NUM_LOOKED_AT = 5000  # rows whose sentences are tokenized


def longest_example(data: DataModule) -> Batch:
    """Rows from all parts of the training split, with the longest of the first sentences of each kind.

    Args:
        data: with its tables.

    Raises:
        ConfigError: if none of the rows can be read.
    """
    table = data.tables["train"]
    split = TrainSplit(table, **data.parts())
    spread = range(0, len(table), max(1, len(table) // NUM_READ))
    longest = [lengths.index(max(lengths)) for lengths in sentence_lengths(data).values() if lengths]
    samples: list[Sample] = []
    fault = ""
    for row in dict.fromkeys([*spread, *longest]):
        try:
            samples.append(split.sample(row, seed=0, train=True))
        except SampleError as error:
            fault = one_line(str(error))
    if not samples:
        raise ConfigError(f"{data.folder}: none of {len(spread)} rows can be read; the last error is {fault}")
    return Collate(inputs=data.inputs, targets=data.targets).batch(samples)


def sentence_lengths(data: DataModule) -> dict[str, list[int]]:
    """Number of tokens in the first training rows, by text input and text target; 0 for a row without a sentence."""
    table = data.tables["train"]
    inputs = {name: kind for name, kind in data.inputs.items() if kind.kind == "text"}
    targets = {name: kind for name, kind in data.targets.items() if isinstance(kind.known, TokenTarget)}
    lengths: dict[str, list[int]] = {name: [] for name in [*inputs, *targets]}
    for cells in rows_at(table, range(min(len(table), NUM_LOOKED_AT))):
        for name, result in lengths.items():
            cell = readable_cell(cells, data.columns.get(name))
            sentence = None
            if not is_empty(cell) and name in inputs:
                loaded = read_or(None, cell, partial(_loaded, inputs[name], data))
                sentence = None if loaded is None else loaded[0]
            elif not is_empty(cell):
                sentence = read_or(None, cell, targets[name].load)
            result.append(0 if sentence is None else len(sentence))
    return lengths


def _loaded(reader: InputKind, data: DataModule, cell: Any) -> tuple[Tensor, int] | None:
    return reader.load(cell, data.folder_of("train"), seed=0, train=False)
