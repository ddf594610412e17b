"""Tables of a folder: DIR/{train,val,test}.{jsonl,csv,tsv,parquet,arrow}, read by the `datasets` library.

This is how every data set comes in; an embedded one first writes such a folder.
"""

import csv
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmtrain.errors import ConfigError

SPLITS = ("train", "val", "test")
READERS = {"jsonl": "json", "csv": "csv", "tsv": "csv", "parquet": "parquet", "arrow": "arrow"}
# The names that people give to the columns, by what they hold; the first that a table has is taken.
USUAL_NAMES = {
    "image": ("image", "img", "picture", "photo", "image_path", "file_name", "filename"),
    "text": ("caption", "captions", "text", "sentence", "title", "description"),
    "label": ("label", "class", "category", "target"),
}


def existing_folder(root: str | Path) -> Path:
    """The folder, if it is one.

    Raises:
        ConfigError: when it is missing or is not a folder.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ConfigError(
            f"data.root = {folder} {what}\n"
            "    set data.root to the folder that holds train.jsonl (or .csv, .parquet ...)"
        )
    return folder


def read_tables(root: Path) -> dict[str, Any]:
    """The `datasets.Dataset` of each split that the folder has.

    Raises:
        ConfigError: when there is no table to train on, one stands twice, or one is empty.
    """
    files: dict[str, Path] = {}
    for split in SPLITS:
        found = [p for ending in READERS if (p := root / f"{split}.{ending}").exists()]
        if len(found) > 1:
            raise ConfigError(
                f"{root} has {' and '.join(p.name for p in found)}: which is the {split} split?\n    keep one"
            )
        if found:
            files[split] = found[0]
    if not files:
        held = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        endings = ", ".join(f".{e}" for e in READERS)
        raise ConfigError(
            f"{root} has no train, val or test table; it holds {held}\n    name a table train with one of {endings}"
        )
    return {split: _read(path, split) for split, path in files.items()}


def _read(path: Path, split: str) -> Any:
    if not path.stat().st_size:
        raise _no_rows(path, split)
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)  # it logs what it raises
    ending = path.suffix[1:]
    options: dict[str, Any] = {}
    try:
        if ending in ("csv", "tsv"):
            options = _as_text(path, "\t" if ending == "tsv" else ",")
        elif ending == "jsonl":
            _check_encoding(path)  # the reader would take any bytes and fail when they are used
        table = datasets.load_dataset(READERS[ending], data_files=str(path), split="train", **options)
    except (datasets.exceptions.DatasetGenerationError, ValueError, csv.Error) as error:
        if "corresponds to no data" in str(error) or options.get("features") == {}:
            raise _no_rows(path, split) from error
        cause = _broken_line(path) if ending == "jsonl" else None
        cause = cause or str(error.__cause__ or error).strip().splitlines()[0]
        mend = "save it as UTF-8" if "codec can't decode" in cause else "mend the table"
        raise ConfigError(f"{path} cannot be read as {ending}: {cause}\n    {mend}") from error
    if len(table) == 0:
        raise _no_rows(path, split)
    return table


def _no_rows(path: Path, split: str) -> ConfigError:
    return ConfigError(f"{path} has no rows: the {split} split is empty\n    fill it, or remove the file")


def _as_text(path: Path, delimiter: str) -> dict[str, Any]:
    """Read every cell of a csv as it is written; an empty one is null.

    Left to itself, pandas makes 7 of 007, 3.0 of a 3 in a column with gaps and nothing of NA, and where the first row
    has a field too many it shifts all columns by one.
    """
    import datasets

    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = (row for row in csv.reader(file, delimiter=delimiter) if row)
        names, first = next(rows, []), next(rows, [])
    if len(first) > len(names):
        raise ValueError(
            f"its first row has {len(first)} fields under {len(names)} column names; quote what holds a comma"
        )
    named = [name or f"Unnamed: {number}" for number, name in enumerate(names)]  # as pandas does
    text = datasets.Value("string")
    return {
        "delimiter": delimiter,
        "keep_default_na": False,
        "na_values": [""],
        "features": datasets.Features(dict.fromkeys(named, text)),
    }


def _check_encoding(path: Path) -> None:
    with path.open(encoding="utf-8") as file:
        for _ in file:
            pass


def _broken_line(path: Path) -> str | None:
    """The first line of a jsonl file that is not JSON, in words."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                json.loads(line.strip() or "null")
            except json.JSONDecodeError as error:
                return f"line {number} is not JSON ({error.msg} at character {error.pos + 1})"
    return None


def find_columns(table: Any, wanted: Mapping[str, str | None]) -> dict[str, str]:
    """Which column holds what.

    Args:
        table: a `datasets.Dataset`.
        wanted: by name of an input or target: its column, or None to look for the usual names.

    Returns:
        The column of each that the table has.

    Raises:
        ConfigError: for a named column that is not there.
    """
    columns: dict[str, str] = {}
    there = list(table.column_names)
    for name, column in wanted.items():
        if column is None:
            usual = next((c for c in USUAL_NAMES.get(name, (name,)) if c in there), None)
            if usual is not None:
                columns[name] = usual
        elif column in there:
            columns[name] = column
        else:
            near = difflib.get_close_matches(column, there, n=1)
            mend = (
                f"set data.columns.{name}={near[0]}" if near else f"set data.columns.{name} to one of them, or to null"
            )
            raise ConfigError(
                f"data.columns.{name} = {column}, but the table has the columns {', '.join(there)}\n    {mend}"
            )
    return columns
