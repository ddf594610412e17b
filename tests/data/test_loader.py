"""Which samples a step has: each once an epoch, the same for every split over ranks, and from any step on."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from mmtrain.data.dataset import Collate, EvalSplit, Position, TrainSplit
from mmtrain.data.loader import EvalSteps, TrainSteps, make_loader
from mmtrain.data.sources.files import read_folder
from tests.data.parts import EVERY_ROW, NAMES, draw_pictures, fitted_label, fitted_text_input, image_input, write_rows

SIZES = [(12, 4), (13, 4), (14, 4), (15, 4), (5, 5), (7, 3), (29, 12), (25, 8), (8, 1)]  # samples, batch size
SPLITS = [(ranks, parts) for ranks in (1, 2, 3) for parts in (1, 2, 4)]


def train_steps(samples: int, batch_size: int, *, ranks: int = 1, parts: int = 1, **more: Any) -> list[TrainSteps]:
    """The steps of every rank."""
    shared: dict[str, Any] = {"num_samples": samples, "batch_size": batch_size, "num_micro_batches": parts, **more}
    return [TrainSteps(rank=rank, world_size=ranks, **shared) for rank in range(ranks)]


def real(step: list[Position]) -> list[int]:
    return [position for _, position in step if position >= 0]


@pytest.mark.parametrize(("samples", "batch_size"), SIZES)
@pytest.mark.parametrize(("ranks", "parts"), SPLITS)
def test_an_epoch_has_each_position_once_on_any_split(samples: int, batch_size: int, ranks: int, parts: int) -> None:
    full = [list(range(first, min(first + batch_size, samples))) for first in range(0, samples, batch_size)]
    by_rank = [list(steps) for steps in train_steps(samples, batch_size, ranks=ranks, parts=parts)]
    assert {len(steps) for steps in by_rank} == {len(full)} == {len(train_steps(samples, batch_size)[0])}
    for number, positions in enumerate(full):
        shares = [steps[number] for steps in by_rank]
        assert len({len(share) for share in shares}) == 1, "every rank runs the same shapes"
        assert len(shares[0]) % parts == 0
        assert sorted(p for share in shares for p in real(share)) == positions


@pytest.mark.parametrize(("ranks", "parts"), SPLITS)
def test_a_short_last_step_is_spread_evenly(ranks: int, parts: int) -> None:
    last = [list(steps)[-1] for steps in train_steps(24 + 13, 24, ranks=ranks, parts=parts)]
    size = len(last[0]) // parts
    sizes = [len(real(step[start : start + size])) for step in last for start in range(0, len(step), size)]
    assert len(sizes) == ranks * parts
    assert max(sizes) - min(sizes) <= 1
    assert size == -(-24 // (ranks * parts)), "as large as in the other steps"


def test_micro_batches_of_one_rank_hold_what_as_many_ranks_would() -> None:
    def sets(ranks: int, parts: int) -> list[list[int]]:
        steps = [next(iter(s)) for s in train_steps(24, 12, ranks=ranks, parts=parts)]
        size = 12 // (ranks * parts)
        return sorted(sorted(real(step[i * size : (i + 1) * size])) for step in steps for i in range(parts))

    assert sets(1, 4) == sets(2, 2) == sets(4, 1)
    assert sets(1, 6) == sets(2, 3) == sets(3, 2)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_goes_on_with_exactly_the_steps_that_remain(ranks: int) -> None:
    samples, batch_size, epochs = 23, 5, 3

    def walk(first_step: int) -> list[list[list[Position]]]:
        """All steps of all ranks as a trainer asks for them: `set_epoch`, then one pass, an epoch."""
        all_ranks = train_steps(samples, batch_size, ranks=ranks, parts=2, first_step=first_step)
        passes = []
        for steps in all_ranks:
            mine = []
            for epoch in range(steps.epoch, epochs):
                steps.sampler.set_epoch(epoch)
                mine += list(steps)
            passes.append(mine)
        return passes

    everything = walk(0)
    assert {len(mine) for mine in everything} == {15}
    for first_step in range(15):
        assert walk(first_step) == [mine[first_step:] for mine in everything], first_step


def test_set_epoch_keeps_the_place_only_in_the_epoch_that_goes_on() -> None:
    (steps,) = train_steps(12, 4, first_step=4)  # step 1 of epoch 1
    steps.set_epoch(1)
    assert list(steps) == [[(1, p) for p in range(4, 8)], [(1, p) for p in range(8, 12)]]
    steps.set_epoch(2)
    assert [step[0] for step in steps] == [(2, 0), (2, 4), (2, 8)]
    steps.set_epoch(1)
    assert len(list(steps)) == 3


def test_a_limited_epoch_counts_its_steps_by_the_limit() -> None:
    (steps,) = train_steps(100, 10, first_step=7, limit=3)
    assert (steps.epoch, steps.start) == (2, 1)


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 30, 41])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_evaluation_has_each_position_once_in_the_same_batches_on_any_number_of_ranks(samples: int, ranks: int) -> None:
    def batches(ranks: int) -> list[list[Position]]:
        by_rank = [list(EvalSteps(num_samples=samples, batch_size=8, rank=r, world_size=ranks)) for r in range(ranks)]
        assert len({len(mine) for mine in by_rank}) == 1, "every rank takes part in as many steps"
        assert {len(mine) for mine in by_rank} == {len(EvalSteps(num_samples=samples, batch_size=8, world_size=ranks))}
        in_turn = [batch for turn in zip(*by_rank, strict=True) for batch in turn]
        assert {len(batch) for batch in in_turn} == {8}
        return [batch for batch in in_turn if real(batch)]

    assert batches(ranks) == batches(1)
    assert [p for batch in batches(ranks) for p in real(batch)] == list(range(samples))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """A table of 21 rows and what it is read with."""
    folder = tmp_path_factory.mktemp("rows")
    names = draw_pictures(folder, 21)
    rows = [{"id": f"r{n}", "image": names[n], "caption": NAMES[n % 6], "label": "ab"[n % 2]} for n in range(21)]
    write_rows(folder / "train.jsonl", rows)
    inputs = {"image": image_input(), "text": fitted_text_input()}
    columns = {"image": "image", "text": "caption", "label": "label"}
    targets = {"label": fitted_label("a", "b")}
    return read_folder(folder, EVERY_ROW).splits["train"], {
        "folder": folder,
        "columns": columns,
        "inputs": inputs,
        "targets": targets,
    }


def load_epochs(table: Any, parts: dict[str, Any], *, workers: int, ranks: int = 1) -> list[Any]:
    collate = Collate(inputs=parts["inputs"], targets=parts["targets"], num_micro_batches=2)
    batches = []
    for steps in train_steps(len(table), 6, ranks=ranks, parts=2):
        split = TrainSplit(table, **parts, seed=4)
        loader = make_loader(split, steps, collate, num_workers=workers, pin_memory=False)
        for epoch in range(2):
            steps.set_epoch(epoch)
            batches += [batch for step in loader for batch in step]
    return batches


def test_workers_change_neither_the_samples_nor_a_draw(parts: tuple[Any, dict[str, Any]]) -> None:
    alone, helped = load_epochs(*parts, workers=0), load_epochs(*parts, workers=2)
    assert [batch.ids for batch in alone] == [batch.ids for batch in helped]
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.inputs["image"].values, other.inputs["image"].values)
        assert torch.equal(one.inputs["text"].values, other.inputs["text"].values)
        assert torch.equal(one.targets["label"], other.targets["label"])
    ids = [name for batch in alone for name in batch.ids if name]
    assert Counter(ids) == {f"r{n}": 2 for n in range(21)}
    assert ids[:21] != ids[21:], "the second epoch has an order of its own"


def test_ranks_change_no_sample(parts: tuple[Any, dict[str, Any]]) -> None:
    def pictures(batches: list[Any]) -> list[tuple[str, bytes]]:
        both = [(name, p) for b in batches for name, p in zip(b.ids, b.inputs["image"].values, strict=True) if name]
        return sorted((name, p.numpy().tobytes()) for name, p in both)

    assert pictures(load_epochs(*parts, workers=0)) == pictures(load_epochs(*parts, workers=0, ranks=2))


def test_evaluation_reads_the_table_in_its_order(parts: tuple[Any, dict[str, Any]]) -> None:
    table, made_with = parts
    split = EvalSplit(table, **made_with, seed=4)
    steps = EvalSteps(num_samples=len(split), batch_size=8)
    collate = Collate(inputs=made_with["inputs"], targets=made_with["targets"])
    batches = [batch for (batch,) in make_loader(split, steps, collate, num_workers=0, pin_memory=False)]
    assert [name for batch in batches for name in batch.ids] == [f"r{n}" for n in range(21)] + [""] * 3
    assert batches[-1].rows.tolist() == [16, 17, 18, 19, 20, -1, -1, -1]


def test_a_worker_outlives_sigterm_whatever_threads_a_library_starts_in_it(tmp_path: Path) -> None:
    """As wandb does. The end of a job signals every process of it; the main one still needs its workers then."""
    script = tmp_path / "forking.py"
    script.write_text(
        """
import os, subprocess, time
from threading import Thread

from mmtrain.data.loader import TrainSteps, make_loader


class Rows:
    def __getitem__(self, at):
        return at[1]

    def __len__(self):
        return 64


os.register_at_fork(after_in_child=lambda: Thread(target=time.sleep, args=(600,), daemon=True).start())
steps = TrainSteps(num_samples=64, batch_size=2)
batches = iter(make_loader(Rows(), steps, len, num_workers=2, pin_memory=False))
next(batches)
for worker in batches._workers:
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
time.sleep(0.3)
print(sum(1 for _ in batches))
"""
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == ["31"], done.stderr
