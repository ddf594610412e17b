"""Columns of parquet files of unusual types: read, or left out with a note and a command that works."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmtrain.data.sources.files import read_folder
from mmtrain.data.tables.cell_checks import check_cells
from mmtrain.data.tables.first_rows import heads_of
from mmtrain.errors import ConfigError
from tests.data.parts import ALL

TEXTS = ["a cat", "ein Bär", None]


def rows_of(folder: Path, **columns: pa.Array) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows and notes of a table, which are the same for its head."""
    pq.write_table(pa.table(columns), folder / "train.parquet")
    result, head = read_folder(folder, ALL), heads_of(folder, ALL)
    rows = list(result.splits["train"])
    assert head is not None and head.splits["train"].rows == rows and head.notes == result.notes
    return rows, list(result.notes)


@pytest.mark.parametrize(
    "array",
    [
        pa.array([text and text.encode() for text in TEXTS], pa.binary()),
        pa.array([text and text.encode() for text in TEXTS], pa.large_binary()),
        pa.array(TEXTS).dictionary_encode(),
        pa.array(TEXTS, pa.large_string()),
    ],
)
def test_texts_of_other_types(tmp_path: Path, array: pa.Array) -> None:
    assert rows_of(tmp_path, caption=array) == ([{"caption": text} for text in TEXTS], [])


def test_files_stay_bytes(tmp_path: Path) -> None:
    files = [b"\x89PNG\r\n\x1a\n\0\0", None, b"RIFF\0\0\0\0WAVE"]
    assert [row["image"] for row in rows_of(tmp_path, image=pa.array(files, pa.binary()))[0]] == files


def test_bytes_that_are_texts_only_at_first_stay_bytes(tmp_path: Path) -> None:
    cells = [b"text"] * 200 + [b"\xff\xfe"]
    pq.write_table(pa.table({"caption": pa.array(cells, pa.binary())}), tmp_path / "train.parquet")
    assert list(read_folder(tmp_path, ALL).splits["train"]["caption"]) == cells


def test_a_map_is_left_out_and_a_key_of_it_can_become_a_column(tmp_path: Path) -> None:
    names = pa.array([[("en", "cat"), ("de", "Katze")], None], pa.map_(pa.string(), pa.string()))
    rows, notes = rows_of(tmp_path, caption=pa.array(["a", "b"]), names=names)
    assert rows == [{"caption": "a"}, {"caption": "b"}]
    assert "the column names is not read, because of its type map<string, string" in notes[0]
    program = notes[0].partition('python -c "')[2].rstrip('"').replace("KEY", "de")
    subprocess.run([sys.executable, "-c", program], check=True)
    assert list(read_folder(tmp_path, ALL).splits["train"]["names.de"]) == ["Katze", None]


@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_parts_of_objects_can_become_columns(tmp_path: Path, ending: str) -> None:
    path, rows = tmp_path / f"train{ending}", [{"caption": {"text": "a cat", "lang": "en"}}] * 2
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text('{"caption": {"text": "a cat", "lang": "en"}}\n' * 2)
    cells = [row["caption"] for row in rows]
    with pytest.raises(ConfigError, match="is no text") as caught:
        check_cells("text", "text", cells, column="caption", where=str(path), folder=tmp_path)
    command, _, then = str(caught.value).partition("its parts: ")[2].partition(", then set ")
    assert then == "data.columns.text=caption.text"
    subprocess.run(command.replace("python ", f"{sys.executable} ", 1), shell=True, check=True)
    assert list(read_folder(tmp_path, ALL).splits["train"]["caption.text"]) == ["a cat"] * 2
