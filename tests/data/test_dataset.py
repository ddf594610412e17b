"""Rows as samples: what is missing stays missing, a draw follows from (seed, epoch, position), batches carry masks."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmtrain.data.dataset import Collate, EvalSplit, TrainSplit
from mmtrain.data.inputs.image import key_of
from mmtrain.data.order import draw_seed, mix, permute
from mmtrain.data.sources.files import read_folder
from mmtrain.data.targets.text import TextTarget
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import Bad, Batch, Padded, Sample
from tests.data.parts import (
    EVERY_ROW,
    NAMES,
    draw_pictures,
    fitted_label,
    fitted_text_input,
    image_input,
    text_input,
    write_rows,
)
from tests.data.tables.test_tables import OneByOne

COLUMNS = {"image": "image", "text": "caption", "label": "label"}
# id, then what the row has of image, text, label
GAPS: list[tuple[dict[str, Any], str]] = [
    ({"id": "all", "image": "0.png", "caption": "a red cat", "label": "cat"}, "image text label"),
    ({"id": "no-image", "image": None, "caption": "a red cat", "label": "cat"}, "text label"),
    ({"id": "no-text", "image": "1.png", "caption": None, "label": "dog"}, "image label"),
    ({"id": "no-label", "image": "2.png", "caption": "a dog", "label": None}, "image text"),
    ({"id": "blank", "image": " ", "caption": " \t", "label": "  "}, ""),
    ({"id": "empty", "image": "", "caption": "", "label": ""}, ""),
    ({"id": "unseen", "image": "3.png", "caption": "", "label": "horse"}, "image"),
    ({"id": "absent"}, ""),
]


def table_of(folder: Path, rows: list[dict[str, Any]]) -> Any:
    write_rows(folder / "train.jsonl", rows)
    return read_folder(folder, EVERY_ROW).splits["train"]


def parts(folder: Path, **changed: Any) -> dict[str, Any]:
    inputs = {"image": image_input(), "text": fitted_text_input()}
    targets = {"label": fitted_label("cat", "dog")}
    return {"folder": folder, "columns": COLUMNS, "inputs": inputs, "targets": targets, "seed": 3} | changed


def plain_rows(folder: Path, count: int) -> list[dict[str, Any]]:
    names = draw_pictures(folder, count)
    return [{"id": f"r{n}", "image": names[n], "caption": NAMES[n % 6], "label": "cat"} for n in range(count)]


def same(one: Sample, other: Sample) -> bool:
    return (one.id, one.row, one.keys, one.bad) == (other.id, other.row, other.keys, other.bad) and all(
        torch.equal(one.inputs[m], other.inputs[m]) for m in one.inputs | other.inputs
    )


@pytest.mark.parametrize("kind", [TrainSplit, EvalSplit])
def test_what_a_row_lacks_is_not_there(tmp_path: Path, kind: type[TrainSplit]) -> None:
    draw_pictures(tmp_path, 4)
    split = kind(table_of(tmp_path, [row for row, _ in GAPS]), **parts(tmp_path))
    results = {s.id: " ".join([*s.inputs, *s.targets]) for s in (split[0, p] for p in range(len(GAPS)))}
    assert results == {row["id"]: has for row, has in GAPS}


def test_a_column_that_a_table_lacks_is_a_gap_in_every_row(tmp_path: Path) -> None:
    draw_pictures(tmp_path, 2)
    split = EvalSplit(table_of(tmp_path, [{"image": "0.png"}, {"image": "1.png"}]), **parts(tmp_path))
    assert len(split) == 2
    assert [(s.id, list(s.inputs), s.targets) for s in (split[0, 0], split[0, 1])] == [
        ("0", ["image"], {}),
        ("1", ["image"], {}),
    ]
    assert split.text(0) is None and split.picture(0) is not None
    unknown = EvalSplit(split.table, **parts(tmp_path, columns={"image": "image"}))
    assert [list(unknown[0, 0].inputs), unknown.text(0)] == [["image"], None]


def test_a_sample_follows_from_seed_epoch_and_position_alone(tmp_path: Path) -> None:
    table = table_of(tmp_path, plain_rows(tmp_path, 12))
    split = TrainSplit(table, **parts(tmp_path))
    places = [(epoch, position) for epoch in (0, 1) for position in range(12)]
    forwards = {at: split[at] for at in places}
    torch.manual_seed(99)
    again = TrainSplit(table, **parts(tmp_path))
    assert all(same(forwards[at], again[at]) for at in reversed(places))
    other_seed = TrainSplit(table, **parts(tmp_path, seed=4))
    assert [forwards[at].row for at in places] != [other_seed[at].row for at in places]


def test_the_rows_of_a_step_are_those_of_its_positions_whatever_reads_them(tmp_path: Path) -> None:
    rows = plain_rows(tmp_path, 9)
    for row in (2, 5, 6):
        rows[row]["image"] = "missing.png"
    table = table_of(tmp_path, rows)
    split, slow = TrainSplit(table, **parts(tmp_path)), TrainSplit(OneByOne(table), **parts(tmp_path))
    for epoch in range(3):
        step = [(epoch, position) for position in (8, 1, -1, 4, 0, 7, -1, 2, 3, 6, 5)]
        for at, sample, other in zip(step, split.__getitems__(step), slow.__getitems__(step), strict=True):
            assert same(sample, other) and same(sample, split[at])
            if at[1] < 0:
                assert sample == Sample()
                continue
            row, tried = permute(at[1], 9, seed=3, epoch=epoch), 0
            while row in (2, 5, 6):
                assert sample.bad[tried][1:3] == (row, "missing.png")
                tried += 1
                row = mix(3, epoch, at[1], tried) % 9
            assert len(sample.bad) == tried
            sample.bad = []
            assert same(sample, split.sample(row, seed=draw_seed(3, epoch, at[1]), train=True))


def test_a_share_of_the_training_rows_keeps_its_targets(tmp_path: Path) -> None:
    table = table_of(tmp_path, plain_rows(tmp_path, 40))

    def labelled(share: float, epoch: int = 0, **changed: Any) -> set[str]:
        split = TrainSplit(table, label_fraction=share, **parts(tmp_path, **changed))
        samples = [split[epoch, position] for position in range(40)]
        assert len({s.id for s in samples if "image" in s.inputs}) == 40
        return {s.id for s in samples if "label" in s.targets}

    few, more = labelled(0.2), labelled(0.5)
    assert labelled(0.0) == set() and len(labelled(1.0)) == 40
    assert 3 <= len(few) <= 14 and few < more
    assert labelled(0.2, epoch=1) == few and labelled(0.2, seed=4) != few
    assert all("label" in s.targets for s in map(EvalSplit(table, **parts(tmp_path)).__getitem__, [(0, 0), (0, 39)]))


def test_modalities_are_dropped_in_training_alone(tmp_path: Path) -> None:
    table = table_of(tmp_path, plain_rows(tmp_path, 40))
    split = TrainSplit(table, modality_dropout={"image": 0.5}, **parts(tmp_path))
    first, second = ([split[epoch, position] for position in range(40)] for epoch in (0, 1))
    gone = [{s.row for s in samples if "image" not in s.inputs} for samples in (first, second)]
    assert all(10 <= len(rows) <= 30 for rows in gone) and gone[0] != gone[1]
    assert all("text" in s.inputs and "label" in s.targets and "image" in s.keys for s in first)
    again = split.__getitems__([(0, position) for position in range(40)])
    assert all(same(one, other) for one, other in zip(first, again, strict=True))
    full = EvalSplit(table, modality_dropout={"image": 0.5}, **parts(tmp_path))
    assert all("image" in full[0, position].inputs for position in range(40))


def test_every_epoch_draws_another_augmentation(tmp_path: Path) -> None:
    split = TrainSplit(table_of(tmp_path, plain_rows(tmp_path, 6)), **parts(tmp_path))
    by_row: dict[int, list[Tensor]] = {}
    for sample in (split[epoch, position] for epoch in range(3) for position in range(6)):
        by_row.setdefault(sample.row, []).append(sample.inputs["image"])
    assert sorted(by_row) == list(range(6))
    for first, second, third in by_row.values():
        assert not torch.equal(first, second) and not torch.equal(second, third) and not torch.equal(first, third)


def test_draws_leave_the_global_generator_alone(tmp_path: Path) -> None:
    split = TrainSplit(table_of(tmp_path, plain_rows(tmp_path, 4)), **parts(tmp_path))
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    for position in range(4):
        _ = split[0, position]
    assert torch.equal(torch.rand(4), expected)


def test_evaluation_draws_nothing(tmp_path: Path) -> None:
    split = EvalSplit(table_of(tmp_path, plain_rows(tmp_path, 4)), **parts(tmp_path))
    assert [split[0, p].row for p in range(4)] == [0, 1, 2, 3]
    assert all(same(split[0, p], split[7, p]) for p in range(4))


SEVERAL = [
    {"id": "x", "image": "0.png", "caption": ["a red cat", " ", "the golden fish", "a grey mouse"], "label": "cat"},
    {"id": "y", "image": "1.png", "caption": ["a green dog"], "label": "dog"},
    {"id": "z", "image": None, "caption": ["many white sheep", "two blue birds"], "label": None},
    {"id": "n", "image": "2.png", "caption": [], "label": "cat"},
]


def test_training_draws_each_of_several_captions(tmp_path: Path) -> None:
    draw_pictures(tmp_path, 3)
    split = TrainSplit(table_of(tmp_path, SEVERAL), **parts(tmp_path))
    assert len(split) == 4
    samples = [split[epoch, position] for epoch in range(60) for position in range(4)]
    keys = [s.keys["text"] for s in samples if s.id == "x"]
    counts = {text: keys.count(key_of(text)) for text in ("a red cat", "the golden fish", "a grey mouse")}
    assert sum(counts.values()) == 60 and min(counts.values()) > 8


def test_evaluation_knows_every_sentence_that_is_right(tmp_path: Path) -> None:
    target = TextTarget(text=text_input(algorithm="wordpiece", vocab_size=200), keep_references=False)
    target.fit(NAMES, tmp_path)
    rows = [{"id": "a", "caption": ["a red cat", "a zebra"]}, {"id": "b", "caption": None}]
    table = table_of(tmp_path, rows)
    given = parts(tmp_path, columns={"written": "caption"}, inputs={}, targets={"written": target})
    collate = Collate(inputs={}, targets={"written": target})
    evaluated = collate.batch(EvalSplit(table, **given).__getitems__([(0, 0), (0, 1), (0, -1)]))
    assert evaluated.references == {"written": [["a red cat", "a zebra"], [], []]}
    assert evaluated.to("cpu").references == evaluated.references
    assert collate.batch(TrainSplit(table, **given).__getitems__([(0, 0), (0, 1)])).references == {}


def test_evaluation_asks_with_each_of_several_captions(tmp_path: Path) -> None:
    draw_pictures(tmp_path, 3)
    split = EvalSplit(table_of(tmp_path, SEVERAL), **parts(tmp_path))
    samples = [split[0, position] for position in range(len(split))]
    assert [s.id for s in samples] == ["x", "y", "z", "n", "x#1", "x#2", "z#1"]
    assert [s.row for s in samples] == list(range(7))
    further = samples[4:]
    assert [list(s.inputs) for s in further] == [["text"]] * 3
    assert [s.targets for s in further] == [{}] * 3, "a label counts once"
    assert [s.keys["text"] for s in further] == [
        key_of(t) for t in ("the golden fish", "a grey mouse", "two blue birds")
    ]
    assert samples[0].keys["image"] == further[0].keys["image"] == further[1].keys["image"] == key_of("0.png")
    assert "image" not in further[2].keys
    assert [split.text(p) for p in (0, 4, 5, 6)] == ["a red cat", "the golden fish", "a grey mouse", "two blue birds"]
    assert split.text(3) is None and split.picture(4) is None
    together = split.__getitems__([(0, position) for position in (6, 0, -1, 5, 3)])
    expected = [samples[6], samples[0], Sample(), samples[5], samples[3]]
    assert all(same(one, other) for one, other in zip(together, expected, strict=True))
    assert (
        [split.position(s.id) for s in samples] == list(range(7)) == [split.position(split.name(p)) for p in range(7)]
    )


def test_a_row_without_an_id_is_named_by_its_number(tmp_path: Path) -> None:
    rows = [{"id": None, "caption": "a"}, {"id": "", "caption": "b"}, {"id": "0012", "caption": "c"}]
    split = EvalSplit(table_of(tmp_path, rows), **parts(tmp_path))
    assert [split[0, p].id for p in range(3)] == ["0", "1", "0012"], 'an id of "" would pass for a filler'


def batch_of(folder: Path) -> Batch:
    draw_pictures(folder, 4)
    split = EvalSplit(table_of(folder, [row for row, _ in GAPS[:4]]), **parts(folder))
    collate = Collate(inputs=split.inputs, targets=split.targets)
    return collate.batch([*(split[0, p] for p in range(4)), split[0, -1]])


def test_a_batch_says_what_each_row_has(tmp_path: Path) -> None:
    batch = batch_of(tmp_path)
    assert len(batch) == 5 and batch.ids == ["all", "no-image", "no-text", "no-label", ""]
    assert batch.rows.tolist() == [0, 1, 2, 3, -1]
    assert batch.present["image"].tolist() == [True, False, True, True, False]
    assert batch.present["text"].tolist() == [True, True, False, True, False]
    assert batch.labelled["label"].tolist() == [True, True, True, False, False]
    assert batch.targets["label"][:3].tolist() == [0, 0, 1]
    assert batch.keys["image"].tolist()[1] == 0 == batch.keys["image"].tolist()[4]
    assert batch.inputs["image"].values.shape == (5, 3, 8, 8) and batch.inputs["image"].mask is None


def test_texts_are_padded_to_the_longest_and_masked(tmp_path: Path) -> None:
    values, mask = batch_of(tmp_path).inputs["text"]
    assert mask is not None and values.shape == mask.shape
    lengths = mask.sum(dim=1).tolist()
    assert lengths[0] == lengths[1] == max(lengths) == mask.shape[1]
    assert lengths[2] == lengths[4] == 0 and 0 < lengths[3] < lengths[0]
    for row, length in enumerate(lengths):
        assert mask[row].tolist() == [True] * length + [False] * (mask.shape[1] - length)
        assert values[row, length:].count_nonzero() == 0


def test_a_batch_of_fillers_is_a_batch(tmp_path: Path) -> None:
    split = TrainSplit(table_of(tmp_path, [{"caption": "a"}]), **parts(tmp_path))
    assert split[0, -1] == Sample() and split[5, -1].id == ""
    batch = Collate(inputs=split.inputs, targets=split.targets).batch([split[0, -1], split[0, -1]])
    assert batch.ids == ["", ""] and not any(p.any() for p in [*batch.present.values(), *batch.labelled.values()])
    assert batch.inputs["text"].values.shape == (2, 1)


def test_collate_cuts_a_step_into_equal_parts_in_order(tmp_path: Path) -> None:
    split = EvalSplit(table_of(tmp_path, [{"id": str(n), "caption": "a"} for n in range(6)]), **parts(tmp_path))
    collate = Collate(inputs=split.inputs, targets=split.targets, num_micro_batches=3)
    assert [b.ids for b in collate([split[0, p] for p in range(6)])] == [["0", "1"], ["2", "3"], ["4", "5"]]


def test_a_batch_can_be_narrowed_and_moved(tmp_path: Path) -> None:
    batch = batch_of(tmp_path)
    alone = batch.only(["text"])
    assert not alone.present["image"].any() and torch.equal(alone.present["text"], batch.present["text"])
    moved = batch.to("meta")
    assert moved.ids == batch.ids and moved.inputs["text"].mask is not None
    assert {t.device.type for t in [moved.rows, *moved.present.values(), *moved.keys.values()]} == {"meta"}


class Raising:
    """An input, and a target, that raises something for some rows, as decoders do for damaged files."""

    kind = "image"
    known = None

    def __init__(self, **errors: BaseException) -> None:
        self.errors = errors

    def load(self, value: Any, folder: Path = Path(), *, seed: int = 0, train: bool = False) -> Any:
        if value in self.errors:
            raise self.errors[value]
        return (torch.zeros(1), 1) if folder != Path() else torch.zeros(1)

    def key(self, value: Any) -> int:
        return self.load(value, Path("x"))[1]

    def pad(self, values: Any) -> Any:
        return Padded(torch.zeros(len(values), 1), None)


ERRORS = {
    "a": MemoryError(),
    "b": RecursionError("too deep"),
    "c": AttributeError("no such"),
    "d": OverflowError("too large"),
    "e": AssertionError(),
}


@pytest.mark.parametrize("as_target", [False, True])
def test_whatever_a_reader_raises_sets_the_row_aside(tmp_path: Path, as_target: bool) -> None:
    table = table_of(tmp_path, [{"id": n, "file": n} for n in (*ERRORS, "good")])
    part = {"thing": Raising(**ERRORS)}
    given = parts(tmp_path, columns={"thing": "file"}, inputs={}, targets={}) | {
        "targets" if as_target else "inputs": part
    }
    evaluated = EvalSplit(table, **given).__getitems__([(0, n) for n in range(6)])
    assert [s.id for s in evaluated] == [*ERRORS, "good"] and evaluated[5].bad == []
    for row, (name, error) in enumerate(ERRORS.items()):
        reason = f"cannot be read: {type(error).__name__}{f': {error}' if str(error) else ''}"
        assert evaluated[row].bad == [Bad(name, row, name, reason, type(error).__name__)]
        assert not evaluated[row].inputs and not evaluated[row].targets
    for epoch in range(3):
        drawn = TrainSplit(table, **given).__getitems__([(epoch, n) for n in range(6)])
        assert {s.id for s in drawn} == {"good"}
        assert {bad.type for s in drawn for bad in s.bad} == {type(error).__name__ for error in ERRORS.values()}


@pytest.mark.parametrize("error", [ConfigError("a knob is wrong"), KeyboardInterrupt()])
def test_what_is_no_fault_of_a_sample_goes_through(tmp_path: Path, error: BaseException) -> None:
    table = table_of(tmp_path, [{"file": "a"}])
    given = parts(tmp_path, columns={"thing": "file"}, inputs={"thing": Raising(a=error)}, targets={})
    for split in (EvalSplit(table, **given), TrainSplit(table, **given)):
        with pytest.raises(type(error)):
            _ = split[0, 0]


class Lazy(Mapping[str, Any]):
    """A row of a shard with a cell that cannot be read."""

    def __init__(self, cells: dict[str, Any]) -> None:
        self.cells = cells

    def __getitem__(self, column: str) -> Any:
        if self.cells[column] == "unreadable":
            raise SampleError("a.tar", f"{column} is damaged")
        return self.cells[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)


class LazyTable:
    """A table of such rows."""

    column_names = ("id", "image", "caption")

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = [Lazy(row) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> Any:
        return self.rows[key] if isinstance(key, int) else [row.cells.get(key) for row in self.rows]


def test_a_row_whose_id_cannot_be_read_is_set_aside_under_its_number(tmp_path: Path) -> None:
    draw_pictures(tmp_path, 1)
    split = EvalSplit(
        LazyTable({"id": "unreadable", "image": "0.png"}, {"id": "b", "image": "0.png"}), **parts(tmp_path)
    )
    samples = [split[0, 0], split[0, 1]]
    assert [s.id for s in samples] == ["0", "b"] == [split.name(0), split.name(1)]
    assert samples[0].bad == [Bad("0", 0, "a.tar", "id is damaged")] and samples[1].bad == []
    assert split.position("0") == 0


def test_what_a_report_shows_of_a_row_that_cannot_be_read_is_nothing(tmp_path: Path) -> None:
    draw_pictures(tmp_path, 1)
    rows = [{"image": "unreadable", "caption": "unreadable"}, {"image": "0.png", "caption": "half \ud83d"}]
    split = EvalSplit(LazyTable(*rows), **parts(tmp_path))
    assert [split.text(n) for n in range(2)] == [None, None] and split.picture(0) is None
    assert split.picture(1) is not None


def test_a_further_text_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    draw_pictures(tmp_path, 1)
    split = EvalSplit(LazyTable({"id": "a", "image": "0.png", "caption": ["a cat", "half \ud83d"]}), **parts(tmp_path))
    assert len(split) == 2
    first, further = split.__getitems__([(0, 0), (0, 1)])
    assert list(first.inputs) == ["image", "text"] and first.bad == []
    assert (further.id, further.row, further.inputs) == ("a#1", 1, {})
    assert [(bad.id, bad.row) for bad in further.bad] == [("a", 0)]
    assert "half of a surrogate pair at character 5" in further.bad[0].reason
