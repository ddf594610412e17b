"""Modality dropout (as in ModDrop, 1501.00102): training samples do not get some of their modalities.

Unlike in the paper, a dropped modality is the same as a missing one, so encoders, fusion, losses and counts need no
special case. The choice depends only on the sample's own seed, not on workers, ranks or restarts.
"""

from collections.abc import Mapping, Sequence

from mmtrain.data.order import mix
from mmtrain.types import Sample

_DROPS, _STAYS = 0x4D44, 0x4D45


def modality_rates(rates: float | Mapping[str, float], modalities: Sequence[str]) -> dict[str, float]:
    """Return one rate per modality.

    Args:
        rates: one for all modalities, or by name; modalities without a rate are kept.
        modalities: the existing modalities.

    Raises:
        ValueError: for an invalid rate or an unknown modality.
    """
    named = dict(rates) if isinstance(rates, Mapping) else dict.fromkeys(modalities, rates)
    for name, rate in named.items():
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"modality_dropout of {name} = {rate}; set it to a fraction from 0 to 1")
        if name not in modalities:
            raise ValueError(f"modality_dropout has {name}, but the data has only {', '.join(modalities)}")
    return named


def drop_modalities(sample: Sample, rates: Mapping[str, float], *, seed: int) -> None:
    """Drop modalities, each with its own rate, but never all: if all would be dropped, one is kept at random.

    Args:
        sample: changed in place. Keys of dropped modalities stay, because their content is still known.
        rates: rates by modality.
        seed: seed of every draw.
    """
    available = sorted(sample.inputs)
    dropped = [m for i, m in enumerate(available) if mix(seed, _DROPS, i) < rates.get(m, 0.0) * 2**64]
    if dropped and len(dropped) == len(available):
        del dropped[mix(seed, _STAYS) % len(dropped)]
    for modality in dropped:
        del sample.inputs[modality]
