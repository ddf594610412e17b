"""Modality dropout (as ModDrop, 1501.00102): in training a sample lacks some of the modalities that it has.

Unusual here: the sample says so as any other that lacks one, so encoders, fusion, losses and counts need nothing of
their own; and which ones go follows from the sample's own seed, whatever the workers, ranks or restarts.
"""

from collections.abc import Mapping, Sequence

from mmtrain.data.order import mix
from mmtrain.types import Sample

_DROPS, _STAYS = 0x4D44, 0x4D45


def modality_rates(rates: float | Mapping[str, float], modalities: Sequence[str]) -> dict[str, float]:
    """One rate a modality.

    Args:
        rates: for all of them, or by name; those that are not named stay.
        modalities: which there are.

    Raises:
        ValueError: for a rate that is none, and a name that there is not.
    """
    named = dict(rates) if isinstance(rates, Mapping) else dict.fromkeys(modalities, rates)
    for name, rate in named.items():
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"modality_dropout of {name} = {rate}; set it to a share from 0 to 1")
        if name not in modalities:
            raise ValueError(f"modality_dropout names {name}, but the data is read for {', '.join(modalities)}")
    return named


def drop_modalities(sample: Sample, rates: Mapping[str, float], *, seed: int) -> None:
    """Take modalities away, each with its own rate, never all: of those that would all go one stays, drawn evenly.

    Args:
        sample: changed in place; the keys of what goes stay, because what it belongs with is still known.
        rates: by modality.
        seed: of every draw.
    """
    there = sorted(sample.inputs)
    gone = [m for i, m in enumerate(there) if mix(seed, _DROPS, i) < rates.get(m, 0.0) * 2**64]
    if gone and len(gone) == len(there):
        del gone[mix(seed, _STAYS) % len(gone)]
    for modality in gone:
        del sample.inputs[modality]
