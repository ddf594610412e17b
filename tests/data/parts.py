"""Small tables and readers that the tests of the data are made with."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from mmtrain.data.inputs.image import ImageInput
from mmtrain.data.inputs.text import TextInput
from mmtrain.data.tables.splits import Split
from mmtrain.data.targets.label import ClassLabel

ALL = Split(column=None, fractions={"train": 1.0}, group=None)
EVERY_ROW = Split(column=None, fractions={"train": 1.0, "val": 0.0, "test": 0.0}, group=None)
WHOLE = Split(column=None, fractions={"train": 0.8, "val": 0.1, "test": 0.1}, group=None)
NAMES = ("a red cat", "a green dog", "two blue birds", "the golden fish", "a grey mouse", "many white sheep")


def image_input(**changed: Any) -> ImageInput:
    return ImageInput(
        **{
            "size": 8,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "crop_scale": 0.5,
            "rotate": 20.0,
            "flip": 0.5,
            "color_jitter": 0.3,
            "background": [255, 255, 255],
            "max_pixels": 10**8,
        }
        | changed
    )


def plain_image_input(**changed: Any) -> ImageInput:
    """Pixels in 0..1 as they are, without a random draw."""
    plain = {"mean": [0.0] * 3, "std": [1.0] * 3, "crop_scale": 1.0, "rotate": 0.0, "flip": 0.0, "color_jitter": 0.0}
    return image_input(**plain | changed)


def text_input(**changed: Any) -> TextInput:
    plain = {"vocab_size": 80, "max_length": 10, "lowercase": True, "algorithm": "bpe", "word_dropout": 0.0}
    return TextInput(**{"tokenizer": None} | plain | changed)


def fitted_text_input(**changed: Any) -> TextInput:
    reader = text_input(**changed)
    reader.fit(NAMES, Path())
    return reader


def fitted_label(*names: str) -> ClassLabel:
    label = ClassLabel()
    label.fit(names, Path())
    return label


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def draw_pictures(folder: Path, count: int) -> list[str]:
    """Pictures that all differ; their paths relative to the folder."""
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        picture = Image.new("RGB", (12, 10), (9 * number % 256, 255 - 7 * number % 256, 50))
        picture.paste((255, 255, 255), (number % 6, number % 4, number % 6 + 4, number % 4 + 3))
        picture.save(folder / name)
    return names
