"""A folder as tables, read by the `datasets` library; an embedded data set first writes such a folder.

DIR/{train,val,test}.{jsonl,csv,tsv,parquet,arrow}, or one such table to be cut into splits, or DIR/[SPLIT/]CLASS/file,
or what `save_to_disk` of `datasets` wrote.
"""

import csv
import json
from pathlib import Path
from typing import Any

from mmtrain.data.folders import read_class_folders
from mmtrain.data.splits import Split
from mmtrain.data.tables import SPLITS, Tables, no_rows, split_name, undecoded
from mmtrain.errors import ConfigError

READERS = {"jsonl": "json", "csv": "csv", "tsv": "csv", "parquet": "parquet", "arrow": "arrow"}


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


def read_folder(root: Path, split: Split) -> Tables:
    """The tables of a folder.

    Args:
        root: the folder.
        split: how a table is cut that stands alone.

    Raises:
        ConfigError: when there is nothing to read, a split stands twice, or one is empty.
    """
    if any((root / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return _saved(root, split)
    files = sorted(p for p in root.iterdir() if p.suffix[1:] in READERS and p.is_file() and not p.name.startswith("."))
    named: dict[str, Path] = {}
    for path in files:
        name = split_name(path.stem)
        if name is not None and name in named:
            raise ConfigError(
                f"{root} has {named[name].name} and {path.name}: which is the {name} split?\n    keep one"
            )
        if name is not None:
            named[name] = path
    if named:
        splits = {name: _read(named[name], name) for name in SPLITS if name in named}
        return Tables(splits=splits, names={name: str(named[name]) for name in splits}, folder=root)
    if len(files) == 1:
        return cut(_read(files[0], "whole"), str(files[0]), root, split)
    if len(files) > 1:
        raise ConfigError(
            f"{root} has the tables {', '.join(p.name for p in files)}: which is for training?\n"
            "    name them train, val and test, or keep one, which is then cut as data.split says"
        )
    folders = read_class_folders(root)
    if folders is None:
        held = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        endings = ", ".join(f".{e}" for e in READERS)
        raise ConfigError(
            f"{root} has no train, val or test table; it holds {held}\n"
            f"    name a table train with one of {endings}, or put files into a folder a class"
        )
    if None in folders:
        return cut(folders[None], str(root), root, split)
    splits = {name: folders[name] for name in SPLITS if name in folders}
    return Tables(splits=splits, names={name: f"{root}/{name}" for name in splits}, folder=root)


def cut(table: Any, name: str, folder: Path, split: Split) -> Tables:
    """A lone table as splits."""
    splits = split.cut(table, name)
    return Tables(splits=splits, names=dict.fromkeys(splits, name), folder=folder)


def _saved(root: Path, split: Split) -> Tables:
    """What `save_to_disk` of `datasets` wrote."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(root))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{root} cannot be read as a saved data set: {reason}\n    save it again") from error
    return of_datasets(saved, str(root), root, split)


def of_datasets(found: Any, name: str, folder: Path, split: Split) -> Tables:
    """Tables of a `Dataset` or a `DatasetDict`, of which other splits than ours are left out.

    Raises:
        ConfigError: when none of the splits is one of ours, or one is empty.
    """
    import datasets

    if isinstance(found, datasets.Dataset):
        return cut(undecoded(found), name, folder, split)
    known = {ours: found[theirs] for theirs in found if (ours := split_name(theirs)) is not None}
    if not known:
        raise ConfigError(f"{name} has the splits {', '.join(found)}\n    rename one to train")
    if list(known) == ["train"]:
        return cut(undecoded(known["train"]), name, folder, split)
    for ours, table in known.items():
        if len(table) == 0:
            raise no_rows(name, ours)
    splits = {ours: undecoded(known[ours]) for ours in SPLITS if ours in known}
    return Tables(splits=splits, names={ours: f"{name} ({ours})" for ours in splits}, folder=folder)


def _read(path: Path, split: str) -> Any:
    if not path.stat().st_size:
        raise no_rows(str(path), split)
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
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError, csv.Error) as error:  # OSError: parquet
        if "corresponds to no data" in str(error) or options.get("features") == {}:
            raise no_rows(str(path), split) from error
        cause = _broken_line(path) if ending == "jsonl" else None
        cause = cause or str(error.__cause__ or error).strip().splitlines()[0]
        mend = "save it as UTF-8" if "codec can't decode" in cause else "mend the table"
        raise ConfigError(f"{path} cannot be read as {ending}: {cause}\n    {mend}") from error
    if len(table) == 0:
        raise no_rows(str(path), split)
    return undecoded(table)


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
