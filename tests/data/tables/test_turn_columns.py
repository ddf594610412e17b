"""What turns of dialogues hold as columns: which turn is taken, what precedes it, what is reported."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mmtrain.build import build_data, compose
from mmtrain.data.sources.files import read_folder
from mmtrain.data.tables.first_rows import heads_of
from mmtrain.data.tables.splits import Split
from mmtrain.data.tables.tables import Tables, cells_of
from mmtrain.data.tables.turn_columns import with_turn_columns
from mmtrain.errors import SampleError
from tests.data.parts import draw_pictures, write_rows
from tests.runs import run_tiny
from tests.tiny import make_tables

A, B = {"speaker": "A", "text": "look", "image": "a.png", "emotion": "joy"}, {"speaker": "B", "text": "a cat"}
ROWS = [
    {"turns": [A, B]},
    {"turns": [A, {**B, "image": "b.png", "speech": "b.wav"}, {**A, "image": None, "emotion": "anger"}]},
    {"turns": [B]},
    {"turns": []},
]
WHOLE = Split(column=None, fractions={"train": 1.0}, group=None)


def grown(folder: Path, rows: list[dict[str, Any]], wanted: Mapping[str, Any] = {}, **options: Any) -> Tables:
    write_rows(folder / "train.jsonl", rows)
    given: dict[str, Any] = {"media": ["image", "audio", "video"], "labels": ["emotion", "caption"], **options}
    result = with_turn_columns(read_folder(folder, WHOLE), wanted, **given)
    heads = heads_of(folder, WHOLE)
    assert heads is not None
    early = with_turn_columns(heads, wanted, **given)
    for name in result.splits["train"].column_names:
        if name not in ("turns", "messages"):
            assert list(cells_of(result.splits["train"], name)) == early.splits["train"][name]
    return result


def cells(found: Tables, name: str) -> list[Any]:
    return list(cells_of(found.splits["train"], name))


@pytest.mark.parametrize("as_json", [False, True])
def test_media_are_of_the_last_turn_that_has_one_and_labels_of_the_last_turn(tmp_path: Path, as_json: bool) -> None:
    rows = [{"turns": json.dumps(row["turns"])} for row in ROWS] if as_json else ROWS
    result = grown(tmp_path, rows)
    assert result.splits["train"].column_names == ["turns", "image", "speech", "emotion"]
    assert cells(result, "image") == ["a.png", "b.png", None, None]
    assert cells(result, "speech") == [None, "b.wav", None, None]
    assert cells(result, "emotion") == [None, "anger", None, None]


def test_several_are_in_their_order(tmp_path: Path) -> None:
    result = grown(tmp_path, ROWS, several=["image"])
    assert cells(result, "image") == [["a.png"], ["a.png", "b.png"], None, None]


def test_columns_of_the_rows_go_first_and_keys_can_be_named(tmp_path: Path) -> None:
    own = [{"photo": "own.png", **row} for row in ROWS]
    assert "image" not in grown(tmp_path, own).splits["train"].column_names
    named = [{"turns": [{"text": "look", "shot": "a.png"}]}]
    assert cells(grown(tmp_path, named, {"image": "shot"}), "shot") == ["a.png"]
    requested = [{"messages": [{"role": "user", "content": "<image>what is this?", "image": "a.png"}]}]
    assert cells(grown(tmp_path, requested), "image") == ["a.png"]


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "?"}]}, {"role": "assistant", "content": []}]


def test_media_in_contents_are_columns(tmp_path: Path) -> None:
    a, b = {"type": "image", "image": "a.png"}, {"type": "image_url", "image_url": {"url": "b.png"}}
    sound = {"type": "audio", "path": "a.wav"}
    rows = [{"messages": json.dumps(user(*parts))} for parts in ([a], [b, sound], [])]
    result = grown(tmp_path, rows)
    assert cells(result, "image") == ["a.png", "b.png", None] and cells(result, "audio") == [None, "a.wav", None]
    assert cells(grown(tmp_path, [{"messages": user(a)}]), "image") == ["a.png"]
    assert cells(grown(tmp_path, rows, several=["image"]), "image") == [["a.png"], ["b.png"], None]
    two = [*rows, {"messages": json.dumps(user(a, b))}]
    assert cells(grown(tmp_path, two), "image") == [["a.png"], ["b.png"], None, ["a.png", "b.png"]]
    own = [{"messages": user({"type": "image"}), "images": ["own.png"]}]
    assert "image" not in grown(tmp_path, own).splits["train"].column_names
    own = [{"messages": user(a), "image": "own.png"}]
    assert cells(grown(tmp_path, own), "image") == ["own.png"]


def test_a_data_url_is_a_file(tmp_path: Path) -> None:
    url = f"data:image/png;base64,{base64.b64encode(b'abc').decode()}"
    parts = [{"type": "image_url", "image_url": {"url": link}} for link in (url, "data:image/png;base64,??", "a.png")]
    result = grown(tmp_path, [{"messages": json.dumps(user(part))} for part in parts])
    assert cells(result, "image") == [
        {"bytes": b"abc", "path": None},
        {"bytes": None, "path": "data:image/png;base64,??"},
        {"bytes": None, "path": "a.png"},
    ]


def test_a_picture_of_a_content_is_read(tmp_path: Path) -> None:
    shown = draw_pictures(tmp_path, 3)
    picture = [{"type": "image", "image": name} for name in shown]
    write_rows(tmp_path / "train.jsonl", [{"messages": user(part)} for part in picture] * 2)
    data = build_data(compose(["data=files", f"data.root={tmp_path}", "data.batch_size=2"]))
    data.read(tmp_path / "run", training=True)
    assert "image" in data.split("train").sample(1, seed=0, train=False).inputs


def test_what_is_said_is_no_label_and_what_is_of_two_types_is_text(tmp_path: Path) -> None:
    rows = [{"turns": json.dumps([{"text": "a", "emotion": value}])} for value in (3, "joy", None)]
    result = grown(tmp_path, rows)
    assert cells(result, "emotion") == ["3", "joy", None] and "text" not in result.splits["train"].column_names


def test_a_key_that_is_nearly_a_medium_is_named(tmp_path: Path) -> None:
    (note,) = grown(tmp_path, [{"turns": [{"text": "look", "imgae": "a.png", "time": 3}]}]).notes
    assert "turns have the key imgae, which nothing reads" in note and "data.columns.image=imgae" in note
    assert grown(tmp_path, [{"turns": [{"text": "look", "id": "3"}]}]).notes == []


def test_a_file_of_a_turn_is_read_or_its_row_is_set_aside(tmp_path: Path) -> None:
    shown = [*draw_pictures(tmp_path, 1), "lost.png", None]
    rows = [{"turns": [{"text": "look", "image": name}, {"text": "a cat"}]} for name in shown]
    write_rows(tmp_path / "train.jsonl", rows)
    data = build_data(compose(["data=files", f"data.root={tmp_path}", "data.batch_size=2"]))
    data.read(tmp_path / "run", training=True)
    split = data.split("train")
    assert set(split.sample(0, seed=0, train=False).inputs) == {"image", "dialogue"}
    assert set(split.sample(2, seed=0, train=False).inputs) == {"dialogue"}
    with pytest.raises(SampleError) as caught:
        split.sample(1, seed=0, train=False)
    assert "lost.png" in caught.value.file


def test_a_run_on_dialogues_with_pictures_and_labels_in_their_turns(tmp_path: Path) -> None:
    tables = make_tables(tmp_path / "data")
    for split in ("train", "val", "test"):
        rows = [json.loads(line) for line in (tables / f"{split}.jsonl").read_text().splitlines()]
        requested = [{"speaker": "A", "text": row["caption"] or "", "image": row["image"]} for row in rows]
        answered = [{"speaker": "B", "text": "yes", "label": row["label"]} for row in rows]
        write_rows(
            tables / f"{split}.jsonl", [{"turns": list(turns)} for turns in zip(requested, answered, strict=True)]
        )
    over = ("task=[classification]", "trainer.max_epochs=1", "test.subsets=none", "encoder.dialogue.text.depth=1")
    assert run_tiny(tables, tmp_path / "run", *over) == 0
    content = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "classification/accuracy" in content["test"]
    assert (tmp_path / "run" / "classes_label.json").is_file()
