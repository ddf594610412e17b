"""Forms of JSON that are no list of rows: read as rows, or refused with what reads them."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmtrain.data.sources.files import read_folder
from mmtrain.data.tables.first_rows import heads_of
from mmtrain.data.tables.json_rows import rows_of_json
from mmtrain.data.tables.table_error import TableError
from tests.data.parts import ALL, draw_pictures

ROWS = [{"image": "a.png", "label": "x"}, {"image": "b.png", "label": "y"}, {"image": "c.png", "label": "x"}]
IMAGES = [{"id": n, "file_name": f"{n}.png", "height": 8} for n in range(3)]
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def coco(annotations: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"info": {}, "licenses": [], "images": IMAGES, "annotations": annotations, **more}


def rows_and_notes(folder: Path, content: Any) -> tuple[list[dict[str, Any]], list[str]]:
    path = folder / "train.json"
    path.write_text(json.dumps(content))
    rows, notes = rows_of_json(path)
    return rows, notes


@pytest.mark.parametrize(
    "content",
    [
        {"columns": ["image", "label"], "index": [0, 1, 2], "data": [list(row.values()) for row in ROWS]},
        {name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ("image", "label")},
        {"schema": {"fields": []}, "data": ROWS},
        {"version": "1.1", "rows": ROWS, "license": None},
    ],
)
def test_what_pandas_and_others_write_is_read(tmp_path: Path, content: Any) -> None:
    assert rows_and_notes(tmp_path, content)[0] == ROWS


def test_keys_next_to_the_rows_are_noted(tmp_path: Path) -> None:
    assert rows_and_notes(tmp_path, {"version": "1.1", "rows": ROWS})[1][0].endswith(
        "the rows are those of 'rows'; not read: version"
    )


def test_a_dict_of_rows_gives_their_ids(tmp_path: Path) -> None:
    rows, _ = rows_and_notes(tmp_path, {"k1": ROWS[0], "k2": ROWS[1]})
    assert rows == [{"id": "k1", **ROWS[0]}, {"id": "k2", **ROWS[1]}]


def test_tables_by_split_have_a_column_of_splits(tmp_path: Path) -> None:
    rows, _ = rows_and_notes(tmp_path, {"train": ROWS[:2], "validation": ROWS[2:]})
    assert [row["split"] for row in rows] == ["train", "train", "validation"]


@pytest.mark.parametrize("content", [{"a": {"x": 1}, "b": {"y": 2}}, {"a": {"x": 1}}, {"a": 1, "b": [1, 2]}])
def test_other_objects_are_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(TableError, match="it is one object with the keys a"):
        rows_and_notes(tmp_path, content)


def test_captions_of_coco(tmp_path: Path) -> None:
    annotations = [{"id": n, "image_id": n % 2, "caption": f"text {n}"} for n in range(4)]
    rows, notes = rows_and_notes(tmp_path, coco(annotations))
    assert rows == [
        {"id": "0", "file_name": "0.png", "caption": ["text 0", "text 2"]},
        {"id": "1", "file_name": "1.png", "caption": ["text 1", "text 3"]},
        {"id": "2", "file_name": "2.png", "caption": None},
    ]
    assert len(notes) == 1


def test_categories_of_coco(tmp_path: Path) -> None:
    boxes = [
        {"image_id": i, "category_id": c, "bbox": [0, 0, 1, 1]} for i, c in ((0, 2), (0, 1), (0, 2), (1, 1), (9, 1))
    ]
    rows, notes = rows_and_notes(tmp_path, coco(boxes, categories=CATEGORIES))
    assert [row["labels"] for row in rows] == [["dog", "cat"], ["cat"], None]
    assert "not read of the annotations: bbox" in notes[1] and "1 annotations are of images that" in notes[2]
    rows, _ = rows_and_notes(tmp_path, coco(boxes[2:4], categories=CATEGORIES))
    assert [row["label"] for row in rows] == ["dog", "cat", None]


@pytest.mark.parametrize(
    "content",
    [
        {"info": {}, "questions": [{"image_id": 1, "question": "what?", "question_id": 10}]},
        {"info": {}, "annotations": [{"image_id": 1, "answers": [{"answer": "a"}], "question_id": 10}]},
    ],
)
def test_one_file_of_vqa_names_what_reads_both(tmp_path: Path, content: Any) -> None:
    with pytest.raises(TableError, match="in two files") as caught:
        rows_and_notes(tmp_path, content)
    assert f"data=vqav2 data.root={tmp_path}" in caught.value.fix


def test_the_table_of_coco_in_the_folder_of_a_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        draw_pictures(tmp_path / split, 3)
        content = coco([{"image_id": 0, "category_id": 1}], categories=CATEGORIES)
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
    result, head = read_folder(tmp_path, ALL), heads_of(tmp_path, ALL)
    assert {split: table["image"][0] for split, table in result.splits.items()} == {
        "train": "train/0.png",
        "val": "valid/0.png",
    }
    assert head is not None and head.splits["val"]["image"] == ["valid/0.png", "valid/1.png", "valid/2.png"]
    assert result.splits["train"]["label"][0] == "cat"
