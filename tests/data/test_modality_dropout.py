"""Modality dropout: rates, never all, the same in any loader."""

from collections import Counter

import pytest
import torch

from mmtrain.data.modality_dropout import drop_modalities, modality_rates
from mmtrain.types import Sample

DRAWS = 4000


def sample(*modalities: str) -> Sample:
    available = {m: torch.zeros(1) for m in modalities}
    return Sample(id="a", inputs=available, keys=dict.fromkeys(modalities, 7))


def left(rates: dict[str, float], seed: int, *modalities: str) -> tuple[str, ...]:
    given = sample(*modalities)
    drop_modalities(given, rates, seed=seed)
    assert given.keys == dict.fromkeys(modalities, 7)  # what it belongs with is still known
    return tuple(given.inputs)


def test_each_goes_at_its_own_rate_and_never_all() -> None:
    rates = {"image": 0.2, "text": 0.5}
    counts = Counter(left(rates, seed, "image", "text", "audio") for seed in range(DRAWS))
    assert all("audio" in there for there in counts)
    for modality, rate in rates.items():
        gone = sum(count for there, count in counts.items() if modality not in there) / DRAWS
        assert gone == pytest.approx(rate, abs=0.03)
    both = sum(count for there, count in counts.items() if there == ("audio",)) / DRAWS
    assert both == pytest.approx(0.1, abs=0.02)  # one does not depend on the other


def test_of_those_that_would_all_go_one_stays() -> None:
    counts = Counter(left({"image": 1.0, "text": 1.0}, seed, "image", "text") for seed in range(DRAWS))
    assert set(counts) == {("image",), ("text",)}
    assert counts["image",] / DRAWS == pytest.approx(0.5, abs=0.03)
    assert left({"image": 1.0}, 3, "image") == ("image",)
    assert left({"image": 1.0}, 3) == ()


def test_the_seed_alone_decides_not_the_order() -> None:
    rates = {"image": 0.5, "text": 0.5, "audio": 0.5}
    for seed in range(50):
        one, other = (left(rates, seed, *names) for names in (("image", "text", "audio"), ("audio", "image", "text")))
        assert set(one) == set(other)


def test_rates_for_all_or_by_name() -> None:
    assert modality_rates(0.3, ["image", "text"]) == {"image": 0.3, "text": 0.3}
    assert modality_rates({"text": 0.3}, ["image", "text"]) == {"text": 0.3}


def test_what_is_no_rate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"modality_dropout of text = 1\.5; set it to a fraction from 0 to 1"):
        modality_rates({"text": 1.5}, ["text"])
    with pytest.raises(ValueError, match="modality_dropout has txt, but the data has only image, text"):
        modality_rates({"txt": 0.5}, ["image", "text"])
