"""Cost of loading: mmtrain's training loader relative to a plain PyTorch DataLoader, and tables of a million rows.

    python scripts/benchmark_loader.py speed [--rounds 3] [--num-workers 0]
    python scripts/benchmark_loader.py rows [--rows 1000000]

`speed`: samples per second for the same files, with the same decoders and the same random transforms. The two
alternate, so a slower machine affects both. The additional work of mmtrain (an order and draws that follow from the
seed, keys of contents, checks, masks) is included. The plain loader decodes a video from its first frame to the last
one that it uses.

`rows`: for each kind of table the seconds from opening it to the first batch, and the memory of the process and its
workers, each in a new process; then the time per position of the order. Memory is PSS (Linux only): a page that
processes share counts once. The value in brackets is without pages of files, because the system can drop those.
"""

import argparse
import json
import logging
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import chain, pairwise, repeat
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import av
import numpy as np
import pyarrow
import torch
from benchmark_files import FPS, write_film, write_picture, write_sound
from pyarrow import parquet
from pytorch_lightning import Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from mmtrain.build import build_data, compose
from mmtrain.data.decoding.image_file import open_image
from mmtrain.data.order import permute, permute_many

WARMUP_BATCHES, BATCHES = 2, 20
NUM_CLASSES = 10
NUM_FRAMES = 16
NUM_PICTURES, NUM_WORDS = 200, 5000  # shared by the rows of a large table
LOOK_AFTER = (100, 1000)  # batches
POSITIONS = 10**9


class Plain(Dataset[tuple[Tensor, int]]):
    """Files and their classes; the DataLoader shuffles and stacks."""

    def __init__(self, files: list[Path], read: Callable[[Path], Tensor]) -> None:
        self.files = files
        self.read = read

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.read(self.files[row]), row % NUM_CLASSES


def crop(size: int) -> v2.Compose:
    """The transform of configs/input/image.yaml."""
    crop = v2.RandomResizedCrop(size, scale=(0.6, 1.0), ratio=(0.9, 1.1), antialias=True)
    scale = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    return v2.Compose([crop, *scale])


def read_picture(path: Path, *, transform: v2.Compose) -> Tensor:
    with open_image(path) as picture:
        return transform(picture.convert("RGB"))


def read_sound(path: Path) -> Tensor:
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=16000)
    with av.open(str(path)) as container:
        pieces = [out.to_ndarray() for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    pieces += [out.to_ndarray() for out in resampler.resample(None)]
    return torch.from_numpy(np.concatenate(pieces, axis=1)[0])


def read_film(path: Path, *, transform: v2.Compose, threads: str) -> Tensor:
    """One random frame from each of NUM_FRAMES equal parts."""
    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = threads
        edges = [part * stream.frames // NUM_FRAMES for part in range(NUM_FRAMES + 1)]
        wanted = [int(torch.randint(low, high, ())) for low, high in pairwise(edges)]
        for number, frame in enumerate(container.decode(stream)):
            if number == wanted[len(frames)]:
                frames.append(frame.to_ndarray(format="rgb24", threads=1))
            if len(frames) == NUM_FRAMES:
                break
    return transform(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2))


class Case(NamedTuple):
    """The files of `speed`, which are loaded repeatedly, with their writer and reader."""

    name: str
    file: str
    num_files: int
    batch_size: int
    write: Callable[[Path, int], None]
    read: Callable[[Path], Tensor]
    overrides: list[str]


def cases() -> list[Case]:
    small, large = partial(write_picture, width=64, height=64), partial(write_picture, width=320, height=256)
    read_small, read_large = (partial(read_picture, transform=crop(size)) for size in (64, 224))
    clip, long = partial(write_film, seconds=10, options={}), partial(write_film, seconds=60, options={"g": str(FPS)})
    alone, threads = (partial(read_film, transform=crop(112), threads=kind) for kind in ("NONE", "AUTO"))
    sound = ["data.inputs.audio.time_mask=0", "data.inputs.audio.freq_mask=0"]
    film = ["data.inputs.video.size=112", f"data.inputs.video.num_frames={NUM_FRAMES}"]
    return [
        Case("64 px of PNG, 64 x 64", "image.png", 256, 128, small, read_small, []),
        Case("224 px of JPEG, 320 x 256", "image.jpg", 128, 32, large, read_large, ["data.inputs.image.size=224"]),
        Case("16 kHz of FLAC, 5 s, 44.1 kHz", "audio.flac", 32, 16, write_sound, read_sound, sound),
        Case("16 frames of 10 s", "video.mp4", 8, 4, clip, alone, film),
        Case("16 frames of 10 s, plain with threads", "video.mp4", 8, 4, clip, threads, film),
        Case("16 frames of 60 s, key frame each second", "video.mp4", 2, 1, long, alone, film),
    ]


def train_loader(folder: Path, overrides: list[str]) -> DataLoader[Any]:
    """The training loader of train.py."""
    cfg = compose(["data=files", f"data.root={folder}", f"run_dir={folder}/{os.getpid()}", *overrides])
    data = build_data(cfg)
    data.read(Path(cfg.run_dir), training=True)
    data.trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    return data.train_dataloader()


def both_loaders(case: Case, folder: Path, num_workers: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
    modality, _, ending = case.file.partition(".")
    files = [folder / f"{number}.{ending}" for number in range(case.num_files)]
    for number, path in enumerate(files):
        case.write(path, number)
    rows = [files[row % case.num_files] for row in range(BATCHES * case.batch_size)]
    table = [{modality: path.name, "label": str(row % NUM_CLASSES)} for row, path in enumerate(rows)]
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in table))
    size = [f"data.batch_size={case.batch_size}", f"data.num_workers={num_workers}"]
    task = ["task=[classification]", f"task.classification.input={modality}"]
    options: dict[str, Any] = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    plain = DataLoader(Plain(rows, case.read), batch_size=case.batch_size, shuffle=True, **options)
    return train_loader(folder, [*size, *task, *case.overrides]), plain


def rate(loader: DataLoader[Any], batch_size: int) -> float:
    """Samples per second of an epoch without its first batches."""
    started = 0.0
    for number, _ in enumerate(loader, start=1):
        if number == WARMUP_BATCHES:
            started = time.perf_counter()
    return (BATCHES - WARMUP_BATCHES) * batch_size / (time.perf_counter() - started)


def speed(console: Console, folder: Path, rounds: int, num_workers: int) -> None:
    table = Table("", "mmtrain", "plain", "ratio", title=f"samples per second, num_workers={num_workers}")
    for case in cases():
        with console.status(case.name), tempfile.TemporaryDirectory(dir=folder) as own:
            ours, plain = both_loaders(case, Path(own), num_workers)
            rates = [(rate(ours, case.batch_size), rate(plain, case.batch_size)) for _ in range(rounds)]
        row = [statistics.median(column) for column in zip(*((o, p, o / p) for o, p in rates), strict=True)]
        table.add_row(case.name, f"{row[0]:.1f}", f"{row[1]:.1f}", f"{row[2]:.3f}")
    console.print(table)


def write_tables(folder: Path, num_rows: int) -> None:
    """Write train.jsonl and train.parquet, each in its own folder, and the images of both."""
    for name in ("pictures", "jsonl", "parquet"):
        (folder / name).mkdir()
    for number in range(NUM_PICTURES):
        write_picture(folder / f"pictures/{number}.png", number, width=32, height=32)
    draws = Random(0)
    words = ["".join(draws.choices("abdefgiklmnoprstu", k=draws.randint(2, 9))) for _ in range(NUM_WORDS)]
    columns = {
        "image": [f"../pictures/{row % NUM_PICTURES}.png" for row in range(num_rows)],
        "caption": [" ".join(draws.choices(words, k=8)) for _ in range(num_rows)],
        "label": [f"class {row % NUM_CLASSES}" for row in range(num_rows)],
    }
    parquet.write_table(pyarrow.table(columns), folder / "parquet/train.parquet")
    with (folder / "jsonl/train.jsonl").open("w") as table:
        for cells in zip(*columns.values(), strict=True):
            table.write(json.dumps(dict(zip(columns, cells, strict=True))) + "\n")


def memory() -> str:
    """MiB of this process and its workers."""
    pids = [os.getpid(), *(worker.pid for worker in multiprocessing.active_children())]
    text = "".join(Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    full, files = (sum(map(int, re.findall(rf"^{name}: +(\d+)", text, re.M))) // 1024 for name in ("Pss", "Pss_File"))
    return f"{full:,} ({full - files:,})"


def measure(folder: Path, num_workers: int) -> list[str]:
    """Memory before, seconds to the first batch, memory after more; for a process without other work."""
    results = [memory()]
    started = time.perf_counter()
    size = ["data.inputs.image.size=32", "data.batch_size=32", f"data.num_workers={num_workers}"]
    loader = train_loader(folder, size)
    for number, _ in enumerate(chain.from_iterable(repeat(loader)), start=1):
        if number == 1:
            results.append(f"{time.perf_counter() - started:.1f}")
        if number in LOOK_AFTER:
            results.append(memory())
        if number == LOOK_AFTER[-1]:
            break
    return results


def rows(console: Console, folder: Path, num_rows: int) -> None:
    columns = ["workers", "at first", "s to batch 1", *(f"after {number:,}" for number in LOOK_AFTER)]
    table = Table("", *columns, title=f"{num_rows:,} rows in batches of 32; memory in MiB")
    with console.status("writing the tables"):
        write_tables(folder, num_rows)
    for kind in ("jsonl", "parquet"):
        for when, num_workers in (("first", 0), ("again", 0), ("again", 4)):
            command = [sys.executable, "-W", "ignore", __file__, "measure", str(folder / kind), str(num_workers)]
            with console.status(f"{kind}, {when}, {num_workers} workers"):
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            table.add_row(f"{kind} {when}", str(num_workers), *json.loads(output))
    console.print(table)


def order(console: Console) -> None:
    table = Table("positions", "permute", "permute_many", title=f"ns per position of {POSITIONS:,}")
    for count in (10**4, 10**6):
        positions = np.random.default_rng(0).integers(0, POSITIONS, count)
        times = [time.perf_counter()]
        for position in positions.tolist():
            permute(position, POSITIONS, seed=0, epoch=0)
        times.append(time.perf_counter())
        permute_many(positions, POSITIONS, seed=0, epoch=0)
        times.append(time.perf_counter())
        table.add_row(f"{count:,}", *(f"{1e9 * (end - start) / count:.0f}" for start, end in pairwise(times)))
    console.print(table)


def main() -> None:
    if "OMP_WAIT_POLICY" not in os.environ:  # as in train.py: spinning threads slow down loading
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    requested = commands.add_parser("speed")
    requested.add_argument("--rounds", type=int, default=3, metavar="N", help="of both loaders (3)")
    requested.add_argument("--num-workers", type=int, default=0, metavar="N", help="processes that load (0)")
    commands.add_parser("rows").add_argument("--rows", type=int, default=1_000_000, metavar="N", help="(1000000)")
    requested = commands.add_parser("measure", description="what `rows` runs")
    requested.add_argument("folder", type=Path)
    requested.add_argument("num_workers", type=int)
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    if arguments.command == "measure":
        print(json.dumps(measure(arguments.folder, arguments.num_workers)))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"  # read with the first table
        if arguments.command == "speed":
            speed(Console(), Path(folder), arguments.rounds, arguments.num_workers)
        else:
            rows(Console(), Path(folder), arguments.rows)
            order(Console())


if __name__ == "__main__":
    main()
