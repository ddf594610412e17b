"""Mixtures: each part has its share of every stretch of an epoch, no row comes twice before all have come once."""

import json
import shutil
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from mmtrain.data.dataset import EvalSplit, TrainSplit
from mmtrain.data.order import BlockOrder, KeyedOrder
from mmtrain.data.sources.files import existing_folder
from mmtrain.data.sources.mix import MixOrder, Part, mix_tables, shares_of
from mmtrain.data.sources.shards import shard_tables
from mmtrain.data.tables.paths import UnconfinedFolder
from mmtrain.data.tables.row_digest import digest_rows
from mmtrain.data.tables.splits import Split
from mmtrain.data.tables.tables import Tables
from mmtrain.errors import ConfigError, SampleError
from tests.data.parts import draw_pictures, fitted_label, fitted_text_input, image_input, write_rows
from tests.data.sources.test_shards import write_tar

MIXES = [
    ([5, 9], [5, 9]),
    ([5, 9], [7, 7]),
    ([1, 40, 3], [10, 10, 24]),
    ([6], [6]),
    ([100, 2], [1, 1]),
    ([3] * 6, [3] * 6),
]


def order(sizes: list[int], shares: list[int]) -> MixOrder:
    return MixOrder(orders=[KeyedOrder(size) for size in sizes], sizes=sizes, shares=shares)


def rows(mixed: MixOrder, epoch: int, seed: int = 1) -> list[int]:
    return [mixed.row(p, seed=seed, epoch=epoch) for p in range(len(mixed))]


def by_part(found: list[int], sizes: list[int]) -> list[list[int]]:
    ends = list(accumulate(sizes))
    return [
        [row - (end - size) for row in found if end - size <= row < end] for end, size in zip(ends, sizes, strict=True)
    ]


# ------------------------------------------------------------------ the order


@pytest.mark.parametrize(("sizes", "shares"), MIXES)
def test_each_part_has_its_share_and_comes_round_whole(sizes: list[int], shares: list[int]) -> None:
    mixed = order(sizes, shares)
    walks: list[list[int]] = [[] for _ in sizes]
    for epoch in range(12):
        parts = by_part(rows(mixed, epoch), sizes)
        assert [len(part) for part in parts] == shares
        for walk, part in zip(walks, parts, strict=True):
            walk += part
    for walk, size in zip(walks, sizes, strict=True):
        full = [walk[first : first + size] for first in range(0, len(walk) - size + 1, size)]
        assert all(sorted(turn) == list(range(size)) for turn in full)
        if size > 4 and len(full) > 1:
            assert full[0] != full[1], "permuted anew each time round"


@pytest.mark.parametrize(("sizes", "shares"), MIXES)
def test_a_position_is_asked_for_alone_or_among_others(sizes: list[int], shares: list[int]) -> None:
    mixed = order(sizes, shares)
    full = rows(mixed, 2)
    assert mixed.rows(np.arange(len(mixed))[::-1], seed=1, epoch=2).tolist() == full[::-1]
    assert order(sizes, shares).row(len(mixed) - 1, seed=1, epoch=2) == full[-1]


def test_mixing_by_size_has_each_row_once_an_epoch() -> None:
    mixed = order([30, 70], [30, 70])
    assert mixed.has_each_once and not order([30, 70], [50, 50]).has_each_once
    assert sorted(rows(mixed, 0)) == sorted(rows(mixed, 1)) == list(range(100))
    assert rows(mixed, 0) != rows(mixed, 1) != rows(mixed, 1, seed=2)


def test_any_stretch_of_an_epoch_has_nearly_the_shares_of_the_whole() -> None:
    shares = [100, 300, 600]
    mixed = order([1000] * 3, shares)
    owners = [mixed.part(p, seed=0, epoch=0)[0] for p in range(1000)]
    for first in range(0, 1000, 50):
        held = Counter(owners[first : first + 50])
        assert all(abs(held[part] - share / 20) <= 2 for part, share in enumerate(shares))
    assert owners != sorted(owners)
    other = [mixed.part(p, seed=0, epoch=1)[0] for p in range(1000)]
    assert owners != other


def test_each_part_is_walked_through_in_order() -> None:
    blocks = BlockOrder([20] * 10, window=2)
    mixed = MixOrder(orders=[blocks, KeyedOrder(50)], sizes=[200, 50], shares=[200, 50])
    first = by_part(rows(mixed, 0), [200, 50])[0]
    assert all(len({row // 20 for row in first[at : at + 40]}) == 2 for at in range(0, 200, 40)), "two blocks at a time"


def test_billions_of_positions_cost_nothing() -> None:
    mixed = order([10**9, 10**6, 7], [10**9, 10**7, 1000])
    assert len({mixed.row(p, seed=0, epoch=3) for p in range(0, len(mixed), len(mixed) // 500)}) > 490


def test_shares() -> None:
    assert shares_of([1, 1, 1], 10) == [4, 3, 3]
    assert sum(shares_of([0.3, 0.1, 7.7], 1001)) == 1001


# ----------------------------------------------------------------- the tables


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two folders whose columns have other names, with the same file names and ids."""
    for name, size in (("a", 6), ("b", 12)):
        (tmp_path / name).mkdir()
        pictures = draw_pictures(tmp_path / name, size)
        caption, label = ("caption", "label") if name == "a" else ("alt", "class")
        for split in ("train", "test"):
            table = [
                {"id": f"r{n}", "img": pictures[n], caption: f"{name} {n}", label: f"{name}{n % 2}"}
                for n in range(size)
            ]
            write_rows(tmp_path / name / f"{split}.jsonl", table)
    return tmp_path


def split() -> Split:
    return Split(column=None, fractions={"train": 0.5, "test": 0.5}, group=None)


def part(folder: Path, **changed: Any) -> Part:
    options = {"columns": {}, "weight": None, "restrict_paths": True, "split": split()} | changed
    return Part(source=lambda: existing_folder(folder), **options)


def mixed(parts: dict[str, Part], **changed: Any) -> Tables:
    inputs = {"image": image_input(max_pixels=10**6), "text": fitted_text_input()}
    options = {"inputs": inputs, "targets": ["label"], "temperature": 1.0, "epoch_size": None} | changed
    return mix_tables(parts=parts, **options)


def two(folders: Path, **changed: Any) -> dict[str, Part]:
    return {"a": part(folders / "a", **changed), "b": part(folders / "b", columns={"text": "alt"}, **changed)}


def refused(parts: dict[str, Part], **changed: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        mixed(parts, **changed)
    what, _, fix = str(caught.value).partition("\n    ")
    assert what and fix
    return str(caught.value)


def shares(tables: Tables) -> list[int]:
    assert isinstance(tables.order, MixOrder)
    return [tables.order._shares[number] for number in range(len(tables.order._shares))]


def test_the_parts_rows_stand_one_after_the_other_under_our_names(folders: Path) -> None:
    tables = mixed(two(folders))
    table = tables.splits["test"]
    assert len(table) == 18
    assert table.column_names == ["id", "image", "text", "label"]
    assert dict(table[7]) == {"id": "b/r1", "image": "b/1.png", "text": "b 1", "label": "b1"}
    assert tables.folder == folders
    assert list(table["id"]) == [table[row]["id"] for row in range(18)]
    assert [dict(cells) for cells in table.__getitems__([7, 0, 17, 7])] == [dict(table[row]) for row in (7, 0, 17, 7)]
    assert list(table["text"])[5:7] == ["a 5", "b 0"]
    assert list(table["image"]) == [table[row]["image"] for row in range(18)]
    assert tables.names["test"] == f"{folders}/a/test.jsonl + {folders}/b/test.jsonl"
    assert len(set(tables.splits["train"]["id"])) == 18


def test_samples_of_all_parts_are_read(folders: Path) -> None:
    tables = mixed(two(folders))
    read_with: dict[str, Any] = {
        "folder": tables.folder,
        "columns": {"image": "image", "text": "text", "label": "label"},
        "inputs": {"image": image_input(max_pixels=10**6), "text": fitted_text_input()},
        "targets": {"label": fitted_label("a0", "a1", "b0", "b1")},
        "seed": 0,
    }
    train = TrainSplit(tables.splits["train"], order=tables.order, **read_with)
    samples = [train[0, position] for position in range(len(train))]
    assert len({sample.id for sample in samples}) == 18
    assert all(set(sample.inputs) == {"image", "text"} and not sample.bad for sample in samples)
    test = EvalSplit(tables.splits["test"], **read_with)
    assert [test[0, p].id for p in range(len(test))] == list(tables.splits["test"]["id"])


def test_a_part_may_lack_what_another_has(folders: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "c" / "train.jsonl", [{"caption": f"c {n}"} for n in range(4)])
    tables = mixed(two(folders) | {"c": part(tmp_path / "c")})
    assert tables.splits["train"][19].get("image") is None
    assert list(tables.splits["train"]["image"])[18:] == [None] * len(tables.splits["train"].parts[2])
    assert dict(tables.splits["train"][18])["id"].startswith("c/")


def test_paths_of_every_form_start_from_the_common_folder(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "train.jsonl").write_text('{"image": null, "text": "a"}\n{"image": ["0.png", "/x/y.png"]}\n')
    (tmp_path / "c" / "test.jsonl").write_text('{"image": {"bytes": null, "path": "0.png"}}\n')
    tables = mixed(two(folders) | {"c": part(tmp_path / "c", restrict_paths=False)})
    assert [tables.splits["train"][row].get("image") for row in (18, 19)] == [None, ["c/0.png", "/x/y.png"]]
    assert tables.splits["test"][18]["image"] == {"bytes": None, "path": "c/0.png"}


def test_a_picture_in_a_turn_starts_from_the_common_folder(folders: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "c" / "train.jsonl", [{"turns": [{"text": "look", "image": "0.png"}, {"text": "a"}]}])
    tables = mixed(two(folders) | {"c": part(tmp_path / "c")})
    assert tables.splits["train"][18]["image"] == "c/0.png"


def test_shares_follow_from_sizes_temperature_or_weights(folders: Path) -> None:
    assert shares(mixed(two(folders))) == [6, 12]
    assert shares(mixed(two(folders), temperature=1e9)) == [9, 9]
    assert shares(mixed(two(folders), temperature=2.0, epoch_size=100)) == [41, 59]
    weighted = two(folders)
    weighted["a"].weight, weighted["b"].weight = 3, 1
    assert shares(mixed(weighted, epoch_size=100)) == [75, 25]


def test_a_part_of_shards_keeps_its_own_order(folders: Path, tmp_path: Path) -> None:
    for shard in range(4):
        write_tar(tmp_path / "tars" / f"{shard}.tar", {f"{n}.txt": f"{shard}" for n in range(5)})

    def source() -> Tables:
        pattern = str(tmp_path / "tars" / "*.tar")
        return shard_tables(train=pattern, val=None, test=None, window=1, fit_rows=8, cache_dir=tmp_path / "cache")

    far = Part(source=source, split=split(), columns={}, weight=None, restrict_paths=False)
    tables = mixed({"far": far, "near": part(folders / "a")})
    table = tables.splits["train"]
    assert tables.order is not None
    seen = [table[tables.order.row(p, seed=0, epoch=0)] for p in range(len(tables.order))]
    walked = [cells["text"] for cells in seen if cells["id"].startswith("far/")]
    assert sorted(walked) == sorted("01234"[:4] * 5)
    assert [len(set(walked[at : at + 5])) for at in range(0, 20, 5)] == [1] * 4, "one shard after the other"
    assert len(list(table["text"])) == 8 + 6, "of the shards as many as vocabularies are learned from"
    assert len(list(table["label"])) == 8 + 6


def test_what_is_wrong_names_the_part(folders: Path) -> None:
    assert "data=mix has no parts" in refused({})
    assert "data.parts.a.columns.text = altt" in refused({"a": part(folders / "a", columns={"text": "altt"})})
    assert "data.parts.a.columns.sound is not an input" in refused({"a": part(folders / "a", columns={"sound": "x"})})
    one = two(folders)
    one["a"].weight = 2.0
    assert "data.parts.b.weight is not set" in refused(one)
    one["b"].weight = 1e9
    assert "data.parts.a has no place in an epoch of 18" in refused(one)
    assert "data.temperature=0" in refused(two(folders), temperature=0)
    with pytest.raises(ValueError, match="weight = -1"):
        part(folders, weight=-1)
    write_rows(folders / "a" / "train.jsonl", [{"image": "../b/0.png", "text": "x"}])
    assert "leads out of the folder" in refused(two(folders))


def test_a_fingerprint_follows_from_all_parts(folders: Path) -> None:
    before = mixed(two(folders)).splits["train"]._fingerprint
    assert mixed(two(folders)).splits["train"]._fingerprint == before
    other = {"x": part(folders / "a"), "b": part(folders / "b", columns={"text": "alt"})}
    assert mixed(other).splits["train"]._fingerprint != before
    write_rows(folders / "b" / "train.jsonl", [{"alt": "new"}] * 3)
    assert mixed(two(folders)).splits["train"]._fingerprint != before


# --------------------------------------------------------------- the command


def test_a_resumed_run_compares_each_part_from_its_own_folder_on(folders: Path, tmp_path: Path) -> None:
    def compared(parts: dict[str, Part]) -> dict[str, Any]:
        tables = mixed(parts)
        return digest_rows(
            tables.splits["train"], ["id", "image", "text", "label"], media=["image"], folder=tables.folder
        )

    calm = compared(two(folders))
    assert calm["count"] == 18 and calm["order"] == "a, b"
    assert set(calm["parts"]["b"]["columns"]) == {"id", "img", "alt", "class"}
    assert calm["parts"]["a"]["files"]["img"].startswith("6 of 6 files, ")
    (tmp_path / "far" / "away").mkdir(parents=True)
    shutil.move(folders / "b", tmp_path / "far" / "away" / "b")
    moved = {"a": part(folders / "a"), "b": part(tmp_path / "far" / "away" / "b", columns={"text": "alt"})}
    assert compared(moved) == calm
    assert compared(dict(reversed(moved.items())))["order"] == "b, a"
    rows = [json.loads(line) for line in (folders / "a" / "train.jsonl").read_text().splitlines()]
    write_rows(folders / "a" / "train.jsonl", [{**row, "caption": "other"} for row in rows])
    now = compared(moved)
    assert now["parts"]["b"] == calm["parts"]["b"]
    assert now["parts"]["a"]["columns"].items() ^ calm["parts"]["a"]["columns"].items() == {
        ("caption", calm["parts"]["a"]["columns"]["caption"]),
        ("caption", now["parts"]["a"]["columns"]["caption"]),
    }


def test_parts_are_written_on_the_command_line(folders: Path) -> None:
    from hydra.utils import instantiate

    from mmtrain.build import build_data, compose

    cfg = compose(
        [
            "data=mix",
            "+part@data.parts.a=files",
            f"data.parts.a.source.root={folders}/a",
            "+part@data.parts.b=files",
            f"data.parts.b.source.root={folders}/b",
            "+data.parts.b.columns.text=alt",
            "data.parts.a.weight=1",
            "data.parts.b.weight=3",
            "data.epoch_size=40",
        ]
    )
    assert OmegaConf.missing_keys(cfg) == set()
    assert json.loads(json.dumps(OmegaConf.to_container(cfg.data.parts)))["b"]["columns"] == {"text": "alt"}
    build_data(cfg)  # settles what the inputs leave to the encoders
    tables = instantiate(cfg.data.source, _convert_="all")()
    assert shares(tables) == [10, 30]
    assert dict(tables.splits["train"][7]) == {"id": "b/r1", "image": "b/1.png", "text": "b 1", "label": "b1"}


# ------------------------------------------------------- paths that lead out of a part


def test_a_path_stays_in_the_folder_of_its_part(folders: Path) -> None:
    (folders / "a" / "out.png").symlink_to(folders / "b" / "0.png")
    write_rows(folders / "a" / "train.jsonl", [{"image": name, "text": "x"} for name in ("0.png", "out.png")])
    tables, reader = mixed(two(folders)), image_input(max_pixels=10**6)
    cells = [tables.splits["train"][row]["image"] for row in range(2)]
    assert cells == ["a/0.png", "a/out.png"]
    reader.open(cells[0], tables.folder)
    for folder in (tables.folder, UnconfinedFolder(tables.folder)):
        with pytest.raises(
            SampleError, match=rf"the data folder {folders}/a; set data\.parts\.a\.restrict_paths=false"
        ):
            reader.open(cells[1], folder)
    open_part = two(folders) | {"a": part(folders / "a", restrict_paths=False)}
    tables = mixed(open_part)
    reader.open(tables.splits["train"][1]["image"], folders)  # its part may, for any mixture
    assert isinstance(tables.folder, UnconfinedFolder), "an index of it may name files elsewhere"


def test_what_leads_out_of_a_part_names_the_key_of_the_part(folders: Path) -> None:
    write_rows(folders / "a" / "train.jsonl", [{"image": "../b/0.png", "text": "x"}])
    assert "allow it with data.parts.a.restrict_paths=false" in refused(two(folders))
    (folders / "a" / "train.jsonl").unlink()
    (folders / "a" / "train.jsonl").symlink_to(folders / "b" / "train.jsonl")
    assert "allow it with data.parts.a.restrict_paths=false" in refused(two(folders))
