"""Tables of a folder: DIR/{train,val,test}.{jsonl,csv,tsv,parquet,arrow}, read by the `datasets` library.

This is how every data set comes in; an embedded one first writes such a folder.
"""

import difflib
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
        raise ConfigError(f"data.root = {folder} {what}\n    set data.root to the folder that holds train.jsonl (or .csv, .parquet ...)")
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
            raise ConfigError(f"{root} has {' and '.join(p.name for p in found)}: which is the {split} split?\n    keep one")
        if found:
            files[split] = found[0]
    if not files:
        held = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        endings = ", ".join(f".{e}" for e in READERS)
        raise ConfigError(f"{root} has no train, val or test table; it holds {held}\n    name a table train with one of {endings}")
    return {split: _read(path, split) for split, path in files.items()}


def _read(path: Path, split: str) -> Any:
    if path.stat().st_size == 0:
        raise ConfigError(f"{path} is empty: the {split} split has no rows\n    fill it, or remove the file")
    import datasets

    datasets.disable_progress_bars()
    ending = path.suffix[1:]
    options: dict[str, Any] = {"delimiter": "\t"} if ending == "tsv" else {}
    try:
        table = datasets.load_dataset(READERS[ending], data_files=str(path), split="train", **options)
    except (datasets.exceptions.DatasetGenerationError, ValueError) as error:
        cause = error.__cause__ or error
        raise ConfigError(f"{path} cannot be read as {ending}: {cause}\n    mend the table") from error
    if len(table) == 0:
        raise ConfigError(f"{path} has no rows: the {split} split is empty\n    fill it, or remove the file")
    return table


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
            mend = f"set data.columns.{name}={near[0]}" if near else f"set data.columns.{name} to one of them, or to null"
            raise ConfigError(f"data.columns.{name} = {column}, but the table has the columns {', '.join(there)}\n    {mend}")
    return columns
