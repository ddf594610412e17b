"""What reaches a model in the world: noise, blur, crops, typing errors, things that are missing; five severities each.

After ImageNet-C (1903.12261), but on what the model sees: pixels at its size, the waveform at its rate, the sentence
before it is tokenized. Every draw follows from (seed, row) and what is done, not from the severity: a row that loses
its caption at severity 2 has lost it at 3, too. All frames of a film, and all pictures of a row, are blurred and
cropped alike; noise is drawn for each. The content keys stay those of the clean row.
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
# What is done at each severity, by the kind of the modality
LEVELS: Mapping[tuple[str, str], tuple[float, ...]] = {
    **{("noise", kind): (0.04, 0.08, 0.12, 0.18, 0.26) for kind in SEEN},  # standard deviation, of pixels in 0..1
    **{("blur", kind): (0.008, 0.015, 0.025, 0.04, 0.06) for kind in SEEN},  # standard deviation, of the side
    **{("crop", kind): (0.9, 0.75, 0.5, 0.35, 0.2) for kind in SEEN},  # share of the area that is left
    ("noise", "audio"): (30.0, 20.0, 10.0, 5.0, 0.0),  # decibels of the sound above white noise
    ("typos", "text"): (0.02, 0.05, 0.1, 0.2, 0.3),  # share of the letters that are wrong
    ("missing", ANY): (0.1, 0.25, 0.5, 0.75, 1.0),  # share of the rows without it
}
NAMES = tuple(dict.fromkeys(name for name, _ in LEVELS))
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Corruption:
    """One thing that is done to one modality.

    Attributes:
        name: one of NAMES.
        modality: that it is done to.
        severity: one of SEVERITIES.
    """

    name: str
    modality: str
    severity: int


def touches(name: str, kind: str) -> bool:
    """Whether a corruption is one of such a modality."""
    return (name, kind) in LEVELS or (name, ANY) in LEVELS


class CorruptedSplit(EvalSplit):
    """A split of evaluation with one modality corrupted.

    Args:
        split: the clean one.
        corruption: what is done.
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
        """Change the modality of a sample where it stands."""
        name, modality = self.corruption.name, self.corruption.modality
        if modality not in sample.inputs:
            return
        seed = mix(self.seed, row, crc32(f"{name} {modality}".encode()))
        draws = torch.Generator().manual_seed(seed % 2**63)
        if name == "missing":
            if float(torch.rand((), generator=draws)) < self.level:
                del sample.inputs[modality]  # its key stays: what it belongs to is still known
            return
        if name == "typos":
            loaded = self.reader.load(mistyped(text, self.level, draws), self.folder, seed=0, train=False)
            assert loaded is not None, "no typo leaves a text blank"
            sample.inputs[modality] = loaded[0]
            return
        change = CHANGES[name, self.reader.kind]
        value = sample.inputs[modality]
        if isinstance(self.reader, ImageInput | VideoInput):
            pixels = self.reader.normalize.undone(value)
            sample.inputs[modality] = self.reader.normalize.of_floats(change(pixels, self.level, draws).clamp(0, 1))
        else:
            sample.inputs[modality] = change(value, self.level, draws)


def noisy_pixels(pixels: Tensor, level: float, draws: torch.Generator) -> Tensor:
    """Pixels (..., 3, H, W) with Gaussian noise of that standard deviation."""
    return pixels + level * torch.randn(pixels.shape, generator=draws)


def blurred(pixels: Tensor, level: float, draws: torch.Generator) -> Tensor:
    """Pixels (..., 3, H, W) under a Gaussian whose standard deviation is that share of the side."""
    sigma = level * pixels.shape[-1]
    return F.gaussian_blur(pixels, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2)


def cropped(pixels: Tensor, level: float, draws: torch.Generator) -> Tensor:
    """A box of that share of the area, somewhere in pixels (..., 3, H, W), at its size."""
    height, width = pixels.shape[-2:]
    tall, wide = (max(1, round(side * math.sqrt(level))) for side in (height, width))
    down, right = torch.rand(2, generator=draws).tolist()
    top, left = int(down * (height - tall + 1)), int(right * (width - wide + 1))
    return F.resized_crop(pixels, top, left, tall, wide, [height, width], antialias=True)


def noisy_sound(waveform: Tensor, level: float, draws: torch.Generator) -> Tensor:
    """A waveform (L,) with white noise so many decibels below it."""
    loudness = waveform.square().mean().sqrt()
    return waveform + loudness * 10 ** (-level / 20) * torch.randn(waveform.shape, generator=draws)


def mistyped(text: str, level: float, draws: torch.Generator) -> str:
    """A text whose letters are wrong with that chance: swapped with the next, left out, doubled, or another one.

    A text keeps its first letter, so that none is left blank.
    """
    wrong = torch.rand(len(text), generator=draws) < level
    kinds = torch.randint(4, (len(text),), generator=draws).tolist()
    others = torch.randint(len(LETTERS), (len(text),), generator=draws).tolist()
    first = next((place for place, letter in enumerate(text) if not letter.isspace()), 0)
    out, held = [], ""
    for place, letter in enumerate(text):
        written = letter
        if place != first and letter.isalpha() and wrong[place]:
            if kinds[place] == 0 and not held and place + 1 < len(text):
                held = letter
                continue
            written = ("", "", letter * 2, LETTERS[others[place]])[kinds[place]]
        out.append(written + held)
        held = ""
    return "".join(out) + held


CHANGES: Mapping[tuple[str, str], Callable[[Tensor, float, torch.Generator], Tensor]] = {
    **{("noise", kind): noisy_pixels for kind in SEEN},
    **{("blur", kind): blurred for kind in SEEN},
    **{("crop", kind): cropped for kind in SEEN},
    ("noise", "audio"): noisy_sound,
}
