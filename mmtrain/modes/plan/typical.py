"""The floating-point operations of a step as most steps have them: with sentences as long as they usually are.

Memory is planned for the longest sentences; operations are summed over a run, in which most batches have no such one.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from mmtrain.layers.packed_rnn import PackedRNN
from mmtrain.modes.plan.simulate import Simulator
from mmtrain.types import Batch


def typical_flops(simulated: Simulator, lengths: Mapping[str, Sequence[int]], num_rows: int) -> int:
    """Of a step of one device, where sentences are padded to the longest of each micro-batch.

    Args:
        simulated: whose example has the longest sentences of all.
        lengths: of sentences, by input or target; 0 for none.
        num_rows: of a micro-batch.
    """
    found = {name: [n for n in numbers if n] for name, numbers in lengths.items()}
    found = {name: numbers for name, numbers in found.items() if numbers}
    padded = {name: max(1, round(expected_longest(numbers, num_rows))) for name, numbers in found.items()}
    shares = {name: sum(numbers) / len(numbers) / padded[name] for name, numbers in found.items()}
    with _padding_skipped(simulated.lit.model.encoders, shares):
        return replace(simulated, example=shortened(simulated.example, padded)).step(num_rows).flops


def expected_longest(lengths: Sequence[int], number: int) -> float:
    """The mean of the largest of so many draws, with replacement.

    >>> expected_longest([2, 4], 1), expected_longest([2, 4], 2)
    (3.0, 3.5)
    """
    below = [(place / len(lengths)) ** number for place in range(len(lengths) + 1)]
    return sum(
        length * (after - before) for length, before, after in zip(sorted(lengths), below[:-1], below[1:], strict=True)
    )


def shortened(batch: Batch, lengths: Mapping[str, int]) -> Batch:
    """The batch with inputs and targets of sentences cut to so many tokens.

    Args:
        batch: whose sentences are at least as long.
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
    """Packed networks compute this share of the tokens of their modality."""
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
