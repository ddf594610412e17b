"""A batch of one row that is not in a table: a question for a trained model, or the dialogue with it so far."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtrain.data.dataset import load_inputs, num_media
from mmtrain.data.decoding.dialogue import Dialogue, Turn
from mmtrain.data.module import DataModule
from mmtrain.data.tables.sample_errors import sample_errors
from mmtrain.data.targets.chat import ChatTarget
from mmtrain.types import Batch, Sample


def collate_request(
    data: DataModule, cells: Mapping[str, Any], turns_of: Callable[[Mapping[str, int]], Sequence[Turn]]
) -> Batch:
    """Build the batch of a row without labels.

    Args:
        data: of the run, with its vocabularies.
        cells: by modality, the content of a table cell; paths start from the working directory.
        turns_of: returns the dialogue that a language model reads, given the number of media by modality.

    Raises:
        SampleError: if a cell cannot be read, or the dialogue mentions another number of media.
    """
    sample = Sample(id="asked", row=0)
    load_inputs(sample, cells, data.inputs, Path(), seed=0, train=False)
    media = num_media(sample, data.inputs)
    for name, target in data.targets.items():
        if isinstance(target, ChatTarget):
            with sample_errors("a dialogue"):
                sample.targets[name] = target.encode(Dialogue(list(turns_of(media)), [], ""))
                target.check_media(sample.targets[name], media)
    return data.collate().batch([sample])
