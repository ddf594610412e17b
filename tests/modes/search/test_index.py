"""An index as files: any change of them, also with a new digest, is refused in a few words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmtrain.errors import ConfigError
from mmtrain.modes.search.index import HEAD, ROWS, VECTORS, Row, SearchIndex, _digest

Change = Callable[[dict[str, Any], list[Any], dict[str, Tensor]], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        Row("a", "train", "a\u2028line", {"image": "a.png"}),
        Row("b", "test", None, {}),
        Row("c", "test", "c", {}),
    ]
    vectors = torch.eye(3)[:2]
    index = SearchIndex({"image": vectors}, {"image": torch.tensor([0, 2])}, rows, tmp_path / "data", "w", 3)
    index.write(tmp_path / "index")
    return tmp_path / "index"


def change(folder: Path, how: Change) -> None:
    """Change the files as a user who knows the format would."""
    head = json.loads((folder / HEAD).read_text())
    rows = [json.loads(line) for line in (folder / ROWS).read_text().split("\n")[:-1]]
    tensors = load_file(folder / VECTORS)
    how(head, rows, tensors)
    (folder / ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_file(tensors, folder / VECTORS)
    (folder / HEAD).write_text(json.dumps(head | {"sha256": _digest(folder)} if isinstance(head, dict) else head))


def test_what_is_written_is_read(folder: Path) -> None:
    index = SearchIndex.read(folder)
    assert [row.text for row in index.rows] == ["a\u2028line", None, "c"]
    assert index.owners["image"].tolist() == [0, 2] and (index.weights, index.step) == ("w", 3)
    change(folder, lambda head, rows, tensors: None)
    assert SearchIndex.read(folder).rows == index.rows


CHANGES: dict[str, Change] = {
    **{f"no {name}": lambda head, rows, tensors, name=name: head.pop(name) for name in ("format", "weights", "step")},
    **{f"no {name}": lambda head, rows, tensors, name=name: head.pop(name) for name in ("folder", "vectors")},
    "format": lambda head, rows, tensors: head.update(format="1"),
    "step": lambda head, rows, tensors: head.update(step=-1),
    "step of another kind": lambda head, rows, tensors: head.update(step=True),
    "folder": lambda head, rows, tensors: head.update(folder=["/"]),
    "no folder named": lambda head, rows, tensors: head.update(folder=""),
    "weights": lambda head, rows, tensors: head.update(weights=None),
    "vectors": lambda head, rows, tensors: head.update(vectors=["image"]),
    "no vectors at all": lambda head, rows, tensors: head.update(vectors={}),
    "another modality": lambda head, rows, tensors: head.update(vectors={"audio": [2, 3]}),
    "the rows of another": lambda head, rows, tensors: head.update(vectors={"image.rows": [2]}),
    "shape": lambda head, rows, tensors: head.update(vectors={"image": [3, 3]}),
    "shape of another kind": lambda head, rows, tensors: head.update(vectors={"image": "2x3"}),
    "fewer rows": lambda head, rows, tensors: rows.pop(),
    "row of another kind": lambda head, rows, tensors: rows.append(3),
    "row without an id": lambda head, rows, tensors: rows[0].pop("id"),
    "row with more": lambda head, rows, tensors: rows[0].update(more=1),
    "id": lambda head, rows, tensors: rows[0].update(id=3),
    "text": lambda head, rows, tensors: rows[0].update(text=["a"]),
    "files": lambda head, rows, tensors: rows[0].update(files=["a.png"]),
    "file": lambda head, rows, tensors: rows[0].update(files={"image": 3}),
    "owner below 0": lambda head, rows, tensors: tensors["image.rows"].fill_(-1),
    "owner above": lambda head, rows, tensors: tensors["image.rows"].fill_(3),
    "owners of another kind": lambda head, rows, tensors: tensors.update({"image.rows": torch.zeros(2)}),
    "fewer owners": lambda head, rows, tensors: tensors.update({"image.rows": torch.zeros(1, dtype=torch.int64)}),
    "no owners": lambda head, rows, tensors: tensors.pop("image.rows"),
    "not finite": lambda head, rows, tensors: tensors["image"].fill_(float("nan")),
    "vectors of another kind": lambda head, rows, tensors: tensors.update(image=torch.eye(3)[:2].double()),
    "vectors without width": lambda head, rows, tensors: (
        tensors.update(image=torch.zeros(2)),
        head.update(vectors={"image": [2]}),
    ),
}


@pytest.mark.parametrize("how", CHANGES)
def test_what_is_no_index_is_refused(how: str, folder: Path) -> None:
    change(folder, CHANGES[how])
    with pytest.raises(ConfigError, match=r"cannot be read as an index: .*\n    fix: create it with mode=predict"):
        SearchIndex.read(folder)


@pytest.mark.parametrize(
    "head", ["", "{", "3", "[]", "null", '"a"', "[" * 100_000, '{"format": 1}', "\x00", " " * 2**21]
)
def test_a_head_that_is_none_is_refused(head: str, folder: Path) -> None:
    (folder / HEAD).write_text(head)
    with pytest.raises(ConfigError, match="cannot be read as an index"):
        SearchIndex.read(folder)


def test_queries_of_another_width_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="the index has vectors of 3 values, but those of the model have 4"):
        SearchIndex.read(folder).nearest(torch.ones(1, 4), "image", 1)
