"""A data set and a model small enough to train in a second, with gaps."""

import json
import random
import re
from pathlib import Path

import pytest
from PIL import Image

from mmtrain.config.compose import config_dir

COLORS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "gold": (230, 190, 40)}
SHAPES = ("square", "bar", "frame")
ROWS = {"train": 44, "val": 13, "test": 15}

TINY_MODEL = [
    "data.inputs.image.size=16",
    "data.inputs.text.vocab_size=60",
    "dim=16",
    "encoder.image.patch_size=8",
    "encoder.image.depth=1",
    "encoder.text.depth=1",
    "data.batch_size=8",
    "data.eval_batch_size=8",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
]


def make_tables(root: Path) -> Path:
    """DIR/{train,val,test}.jsonl with pictures; some rows have no caption (1 in 7), label or picture (1 in 9)."""
    root.mkdir(parents=True)
    (root / "images").mkdir()
    draw = random.Random(0)
    for split, count in ROWS.items():
        rows = [_row(root, split, number, draw) for number in range(count)]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def _row(root: Path, split: str, number: int, draw: random.Random) -> dict[str, str | int | None]:
    color, shape = draw.choice(list(COLORS)), draw.choice(SHAPES)
    picture = Image.new("RGB", (20, 20), "white")
    left, top = draw.randrange(6), draw.randrange(6)
    box = {"square": (10, 10), "bar": (14, 4), "frame": (12, 12)}[shape]
    picture.paste(COLORS[color], (left, top, left + box[0], top + box[1]))
    if shape == "frame":
        picture.paste((255, 255, 255), (left + 3, top + 3, left + 9, top + 9))
    name = f"images/{split}{number}.png"
    picture.save(root / name)
    return {
        "id": f"{split}-{number}",
        "image": None if number % 9 == 4 else name,
        "caption": None if number % 7 == 3 else f"a {color} {shape}",
        "label": None if number % 9 == 5 else shape,
        "number": None if number % 5 == 2 else number % 4,
    }


def make_fetched_folders(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with an empty folder for each data set that configs/ expects a script to have fetched."""
    monkeypatch.setenv("MMTRAIN_CACHE", str(cache))
    for file in config_dir().rglob("*.yaml"):
        for name in re.findall(r"root: \$\{oc\.env:MMTRAIN_CACHE,.*\}/(\w+)", file.read_text(encoding="utf-8")):
            (cache / name).mkdir(parents=True, exist_ok=True)
