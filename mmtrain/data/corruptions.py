"""Corruptions of inputs: noise, blur, crops, typing errors, missing modalities, with five severities each.

As in ImageNet-C (1903.12261), but applied to the input of the model: pixels at its size, the waveform at its sampling
rate, the sentence before tokenization. Random draws depend on (seed, row) and the corruption, but not on the severity:
a row without its caption at severity 2 has none at severity 3, too. All frames of a video, and all images of a row,
have the same blur and crop; noise is drawn for each. Content keys are those of the clean row.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from mmtrain.data.dataset import EvalSplit
from mmtrain.data.inputs.image import ImageInput
from mmtrain.data.inputs.video import VideoInput
from mmtrain.data.order import mix
from mmtrain.data.tables.columns import cell_of
from mmtrain.data.tables.texts import texts_of
from mmtrain.types import Sample

SEVERITIES = (1, 2, 3, 4, 5)
ANY = "any"
SEEN = ("image", "images", "video")
# Parameter at each severity, by kind of modality
LEVELS: Mapping[tuple[str, str], tuple[float, ...]] = {
    **{("noise", kind): (0.04, 0.08, 0.12, 0.18, 0.26) for kind in SEEN},  # standard deviation, for pixels in 0..1
    **{("blur", kind): (0.008, 0.015, 0.025, 0.04, 0.06) for kind in SEEN},  # standard deviation, relative to the side
    **{("crop", kind): (0.9, 0.75, 0.5, 0.35, 0.2) for kind in SEEN},  # fraction of the area that is kept
    ("noise", "audio"): (30.0, 20.0, 10.0, 5.0, 0.0),  # signal-to-noise ratio in decibels, with white noise
    ("typos", "text"): (0.02, 0.05, 0.1, 0.2, 0.3),  # fraction of wrong letters
    ("missing", ANY): (0.1, 0.25, 0.5, 0.75, 1.0),  # fraction of rows without it
}
NAMES = tuple(dict.fromkeys(name for name, _ in LEVELS))
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Corruption:
    """A corruption of one modality.

    Attributes:
        name: one of NAMES.
        modality: the corrupted modality.
        severity: one of SEVERITIES.
    """

    name: str
    modality: str
    severity: int


def applies_to(name: str, kind: str) -> bool:
    """Whether a corruption applies to this kind of modality."""
    return (name, kind) in LEVELS or (name, ANY) in LEVELS


class CorruptedSplit(EvalSplit):
    """An evaluation split with one corrupted modality.

    Args:
        split: the clean split.
        corruption: the corruption.
    """

    def __init__(self, split: EvalSplit, corruption: Corruption) -> None:
        super().__init__(
            split.table,
            folder=split.folder,
            columns=split.columns,
            inputs=split.inputs,
            targets=split.targets,
            seed=split.seed,
        )
        self.corruption = corruption
        self.reader = split.inputs[corruption.modality]
        kind = self.reader.kind if (corruption.name, self.reader.kind) in LEVELS else ANY
        self.level = LEVELS[corruption.name, kind][corruption.severity - 1]

    def _sample(self, cells: Mapping[str, Any], row: int, *, seed: int, train: bool) -> Sample:
        sample = super()._sample(cells, row, seed=seed, train=train)
        texts = texts_of(cell_of(cells, self.columns.get(self.corruption.modality)))
        self._corrupt(sample, row, texts[0] if texts else "")
        return sample

    def _further_sample(self, position: int, cells: Mapping[str, Any]) -> Sample:
        sample = super()._further_sample(position, cells)
        _, modality, nth = self.further[position - len(self.table)]
        if modality == self.corruption.modality:
            self._corrupt(sample, position, texts_of(cell_of(cells, self.columns[modality]))[nth])
        return sample

    def _corrupt(self, sample: Sample, row: int, text: str) -> None:
        """Corrupt the modality of a sample in place."""
        name, modality = self.corruption.name, self.corruption.modality
        if modality not in sample.inputs:
            return
        seed = mix(self.seed, row, crc32(f"{name} {modality}".encode()))
        draws = torch.Generator().manual_seed(seed % 2**63)
        if name == "missing":
            if float(torch.rand((), generator=draws)) < self.level:
                del sample.inputs[modality]  # its key stays, because the content is still known
            return
        if name == "typos":
            loaded = self.reader.load(add_typos(text, self.level, draws), self.folder, seed=0, train=False)
            assert loaded is not None, "typing errors leave no text blank"
            sample.inputs[modality] = loaded[0]
            return
        change = CHANGES[name, self.reader.kind]
        value = sample.inputs[modality]
        if isinstance(self.reader, ImageInput | VideoInput):
            pixels = self.reader.normalize.undone(value)
            sample.inputs[modality] = self.reader.normalize.of_floats(change(pixels, self.level, draws).clamp(0, 1))
        else:
            sample.inputs[modality] = change(value, self.level, draws)


def add_pixel_noise(pixels: Tensor, level: float, draws: torch.Generator) -> Tensor:
    """Pixels (..., 3, H, W) with Gaussian noise of standard deviation `level`."""
    return pixels + level * torch.randn(pixels.shape, generator=draws)


def blur(pixels: Tensor, level: float, draws: torch.Generator) -> Tensor:
    """Pixels (..., 3, H, W) with Gaussian blur, whose standard deviation is the fraction `level` of the side."""
    sigma = level * pixels.shape[-1]
    return F.gaussian_blur(pixels, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2)


def crop(pixels: Tensor, level: float, draws: torch.Generator) -> Tensor:
    """A random box with the fraction `level` of the area of pixels (..., 3, H, W), resized to their size."""
    height, width = pixels.shape[-2:]
    tall, wide = (max(1, round(side * math.sqrt(level))) for side in (height, width))
    down, right = torch.rand(2, generator=draws).tolist()
    top, left = int(down * (height - tall + 1)), int(right * (width - wide + 1))
    return F.resized_crop(pixels, top, left, tall, wide, [height, width], antialias=True)


def add_sound_noise(waveform: Tensor, level: float, draws: torch.Generator) -> Tensor:
    """A waveform (L,) with white noise at a signal-to-noise ratio of `level` decibels."""
    loudness = waveform.square().mean().sqrt()
    return waveform + loudness * 10 ** (-level / 20) * torch.randn(waveform.shape, generator=draws)


def add_typos(text: str, level: float, draws: torch.Generator) -> str:
    """A text whose letters are wrong with probability `level`: swapped with the next, dropped, doubled, or replaced.

    The first letter is kept, so no text becomes blank.
    """
    wrong = torch.rand(len(text), generator=draws) < level
    kinds = torch.randint(4, (len(text),), generator=draws).tolist()
    others = torch.randint(len(LETTERS), (len(text),), generator=draws).tolist()
    first = next((place for place, letter in enumerate(text) if not letter.isspace()), 0)
    out, pending = [], ""
    for place, letter in enumerate(text):
        written = letter
        if place != first and letter.isalpha() and wrong[place]:
            if kinds[place] == 0 and not pending and place + 1 < len(text):
                pending = letter
                continue
            written = ("", "", letter * 2, LETTERS[others[place]])[kinds[place]]
        out.append(written + pending)
        pending = ""
    return "".join(out) + pending


CHANGES: Mapping[tuple[str, str], Callable[[Tensor, float, torch.Generator], Tensor]] = {
    **{("noise", kind): add_pixel_noise for kind in SEEN},
    **{("blur", kind): blur for kind in SEEN},
    **{("crop", kind): crop for kind in SEEN},
    ("noise", "audio"): add_sound_noise,
}
