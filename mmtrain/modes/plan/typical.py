"""Floating-point operations of a typical step, with sentences of typical length.

Memory is planned for the longest sentences. Operations are summed over a run, in which most batches have shorter ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from mmtrain.layers.packed_rnn import PackedRNN
from mmtrain.modes.plan.simulate import Simulator
from mmtrain.types import Batch


def typical_flops(simulated: Simulator, lengths: Mapping[str, Sequence[int]], num_rows: int) -> int:
    """Operations of a step on one device, where sentences are padded to the longest of each micro-batch.

    Args:
        simulated: its example has the longest sentences of all.
        lengths: of sentences, by input or target; 0 for none.
        num_rows: of a micro-batch.
    """
    results = {name: [n for n in numbers if n] for name, numbers in lengths.items()}
    results = {name: numbers for name, numbers in results.items() if numbers}
    padded = {name: max(1, round(expected_longest(numbers, num_rows))) for name, numbers in results.items()}
    shares = {name: sum(numbers) / len(numbers) / padded[name] for name, numbers in results.items()}
    with _padding_skipped(simulated.lit.model.encoders, shares):
        return replace(simulated, example=truncate_texts(simulated.example, padded)).step(num_rows).flops


def expected_longest(lengths: Sequence[int], number: int) -> float:
    """The mean of the maximum of this number of draws, with replacement.

    >>> expected_longest([2, 4], 1), expected_longest([2, 4], 2)
    (3.0, 3.5)
    """
    below = [(place / len(lengths)) ** number for place in range(len(lengths) + 1)]
    return sum(
        length * (after - before) for length, before, after in zip(sorted(lengths), below[:-1], below[1:], strict=True)
    )


def truncate_texts(batch: Batch, lengths: Mapping[str, int]) -> Batch:
    """The batch with text inputs and targets cut to these numbers of tokens.

    Args:
        batch: with sentences that are at least as long.
        lengths: by input or target.
    """
    inputs = {
        name: padded._replace(
            values=padded.values[:, : lengths[name]],
            mask=None if padded.mask is None else padded.mask[:, : lengths[name]],
        )
        if name in lengths
        else padded
        for name, padded in batch.inputs.items()
    }
    targets = {name: t[:, : lengths[name]] if name in lengths else t for name, t in batch.targets.items()}
    return replace(batch, inputs=inputs, targets=targets)


@contextmanager
def _padding_skipped(encoders: nn.ModuleDict, shares: Mapping[str, float]) -> Iterator[None]:
    """Make packed networks compute only this fraction of the tokens of their modality."""
    packed = {m: share for name, share in shares.items() if name in encoders for m in _packed(encoders[name])}
    for module, share in packed.items():
        module.share_without_content = share
    try:
        yield
    finally:
        for module in packed:
            module.share_without_content = 1.0


def _packed(encoder: nn.Module) -> Iterator[PackedRNN]:
    yield from (module for module in encoder.modules() if isinstance(module, PackedRNN))
