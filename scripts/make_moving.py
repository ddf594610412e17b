"""Create short videos of moving things: handwritten digits or emoji that go left, then up, in a circle, grow ...

    python scripts/make_moving.py [--of emoji] [--clips 3000] [--seed 0] [--source DIR] [--out DIR]
    python train.py data=moving task=[classification] task.classification.input=video

Half a minute and 15 MB for 3,000 films of 16 frames of 64 x 64 at 8 a second (H.264). Digits are those that
scripts/fetch_digits.py wrote; emoji are drawn when they are not there yet. Each thing is in one split, that of its
source. Writes {train,val,test}.jsonl and videos/:

    {"id": "train-00012", "video": "videos/train-00012.mp4", "caption": "a seven moves left, then up",
     "question": "does the digit grow?", "answer": "no", "label": "left then up", "base": "0017"}
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

from mmtrain.data.decoding.image_file import open_image
from mmtrain.data.sources.emoji_bases import is_plain
from mmtrain.data.sources.fetch import (
    FRACTIONS,
    Row,
    Tables,
    cache_folder,
    command_line,
    exit_status,
    fetched_folder,
    watched,
    write_folder,
)
from mmtrain.data.sources.openmoji import prepare_openmoji
from mmtrain.errors import ConfigError

FORMAT = 1  # increase it when videos or words change, so that old folders are replaced
FRAMES, SIDE, FPS = 16, 64, 8
THING = 24  # pixels of a thing at scale 1
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
REACH = {1: 30, 2: 22}  # pixels of a movement, by the number of movements
RADIUS = 12
# By default x264 writes a few percent of the videos with other bytes from run to run. Either of the two prevents that,
# and without frames that refer to later ones the files are smaller, too.
ENCODER = "cpu-independent=1:bframes=0"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The name's form in a sentence: "does it ...?"; with an s after the first word: "it ...".
MOVES = {
    **{name: f"move {name}" for name in DIRECTIONS},
    **{f"{first} then {second}": f"move {first}, then {second}" for first, second in permutations(DIRECTIONS, 2)},
    "clockwise": "move in a circle, clockwise",
    "counterclockwise": "move in a circle, counterclockwise",
    "zigzag": "move in a zigzag",
    "growing": "grow",
    "shrinking": "shrink",
    "still": "stand still",
}


class Thing(NamedTuple):
    """A moving thing: its image, its name (a digit with article), and the key that keeps its variants together."""

    picture: Path
    name: str
    base: str


class Place(NamedTuple):
    """The position of a thing in one frame, in pixels from its start, and its scale."""

    x: float
    y: float
    scale: float = 1.0


def main() -> None:
    parser = command_line(__doc__, "moving")
    parser.add_argument("--of", choices=("digits", "emoji"), default="digits", help="what moves (digits)")
    parser.add_argument("--clips", type=int, default=3000, metavar="N", help="how many films (3000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every draw (0)")
    parser.add_argument("--source", type=Path, metavar="DIR", help="the folder of the digits or emoji")
    arguments = parser.parse_args()
    least = math.ceil(len(MOVES) / min(FRACTIONS.values()))
    if arguments.clips < least:
        raise ConfigError(
            f"--clips {arguments.clips} is too few for all {len(MOVES)} movements in each split\n"
            f"    fix: set --clips {least} or more"
        )
    source = (arguments.source or source_of(arguments.of)).expanduser()
    parameters = {
        "format": FORMAT,
        "of": arguments.of,
        "source": str(source.resolve()),
        "clips": arguments.clips,
        "seed": arguments.seed,
    }
    write_folder(arguments.out, parameters, lambda folder, _: moving(source, folder, arguments))


def source_of(kind: str) -> Path:
    if kind == "digits":
        return fetched_folder(cache_folder() / "digits", "python scripts/fetch_digits.py")
    return prepare_openmoji(cache_dir=cache_folder(), size=64, languages=["en"], split=FRACTIONS)


def moving(source: Path, folder: Path, asked: argparse.Namespace) -> Tables:
    """Record the things of each split, with every movement equally often, and return the rows."""
    (folder / "videos").mkdir()
    tables: dict[str, list[Row]] = {}
    for split, fraction in FRACTIONS.items():
        things = list(things_of(source, split, asked.of))
        numbers = range(round(fraction * asked.clips))
        tables[split] = []
        for number in watched(numbers, f"filming {split}"):
            draws = Random(f"{asked.seed} {split} {number}")
            thing, move = draws.choice(things), list(MOVES)[number % len(MOVES)]
            name = f"{split}-{number:05d}"
            write_film(folder / "videos" / f"{name}.mp4", frames_of(thing.picture, path_of(move), draws))
            question, answer = question_of(thing, move, asked.of, draws)
            tables[split].append(
                {
                    "id": name,
                    "video": f"videos/{name}.mp4",
                    "caption": f"{thing.name} {' '.join(third_person(MOVES[move]))}",
                    "question": question,
                    "answer": answer,
                    "label": move,
                    "base": thing.base,
                }
            )
    return tables


def things_of(source: Path, split: str, kind: str) -> Iterator[Thing]:
    table = source / f"{split}.jsonl"
    if not table.is_file():
        raise ConfigError(f"{source} has no {table.name}\n    fix: name the folder of the {kind}: --source DIR")
    for line in table.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if kind == "digits":
            digit = DIGITS[int(row["label"])]
            yield Thing(source / row["image"], f"{'an' if digit == 'eight' else 'a'} {digit}", row["id"])
        elif is_plain(row["id"]):  # a skin tone is not visible at this size
            yield Thing(source / row["image"], row["caption"][0], row["base"])


def third_person(phrase: str) -> list[str]:
    first, *others = phrase.split()
    return [f"{first}s", *others]


def question_of(thing: Thing, move: str, kind: str, draws: Random) -> tuple[str, str]:
    noun = {"digits": "digit", "emoji": "picture"}[kind]
    ask = draws.choice(("how", "whether", "which") if kind == "digits" else ("how", "whether"))
    if ask == "how":
        return f"how does the {noun} move?", move
    if ask == "which":
        return "which digit is it?", thing.name.split()[1]
    other = draws.choice([name for name in MOVES if name != move and name not in move.split(" then ")])
    yes = draws.random() < 0.5
    return f"does the {noun} {MOVES[move if yes else other]}?", "yes" if yes else "no"


def path_of(move: str) -> list[Place]:
    times = [frame / (FRAMES - 1) for frame in range(FRAMES)]
    if move in ("clockwise", "counterclockwise"):
        turn = 2 * math.pi * (1 if move == "clockwise" else -1)  # y goes down
        return [Place(RADIUS * math.sin(turn * t), -RADIUS * math.cos(turn * t)) for t in times]
    if move == "zigzag":
        return [Place(34 * t, 12 * abs((4 * t) % 2 - 1)) for t in times]
    if move in ("growing", "shrinking"):
        first, last = (0.5, 1.7) if move == "growing" else (1.7, 0.5)
        return [Place(0, 0, first + (last - first) * t) for t in times]
    if move == "still":
        return [Place(0, 0)] * FRAMES
    legs = [DIRECTIONS[name] for name in move.split(" then ")]
    gone = [[REACH[len(legs)] * min(1.0, max(0.0, t * len(legs) - leg)) for leg in range(len(legs))] for t in times]
    return [
        Place(
            sum(x * far for (x, _), far in zip(legs, fars, strict=True)),
            sum(y * far for (_, y), far in zip(legs, fars, strict=True)),
        )
        for fars in gone
    ]


def frames_of(picture: Path, path: Sequence[Place], draws: Random) -> Iterator[np.ndarray]:
    """Frames (SIDE, SIDE, 3), uint8, of the path, at a position where all of it is visible."""
    thing = open_image(picture).convert("RGB")
    ground = thing.getpixel((0, 0))
    begin = []
    for values in ([place.x for place in path], [place.y for place in path]):
        room = [THING * place.scale / 2 for place in path]
        low = max(half - value for half, value in zip(room, values, strict=True))
        high = min(SIDE - half - value for half, value in zip(room, values, strict=True))
        begin.append(draws.uniform(low, high))
    for place in path:
        side = round(THING * place.scale)
        frame = Image.new("RGB", (SIDE, SIDE), ground)
        corner = (round(begin[0] + place.x - side / 2), round(begin[1] + place.y - side / 2))
        frame.paste(thing.resize((side, side), Image.Resampling.BICUBIC), corner)
        yield np.asarray(frame)


def write_film(path: Path, frames: Iterator[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        options = {"crf": "18", "preset": "veryfast", "x264-params": ENCODER}
        stream: Any = container.add_stream("libx264", rate=FPS, options=options)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    sys.exit(exit_status(main))
