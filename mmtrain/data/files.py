"""A folder as tables, read by the `datasets` library; an embedded data set first writes such a folder.

DIR/{train,val,test}.{jsonl,csv,tsv,json,parquet,arrow}, or one such table to be cut into splits, or
DIR/[SPLIT/]CLASS/file, or what `save_to_disk` of `datasets` wrote.
"""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmtrain.data.caches import datasets_cache_error
from mmtrain.data.folders import Columns, read_class_folders
from mmtrain.data.json_rows import NoRowsError, broken_line, check_nesting, names_in, not_json, rows_of_json
from mmtrain.data.layout import WHOLE, ending, nothing_in, passed_over, tables_in
from mmtrain.data.paths import data_folder, refuse_outside
from mmtrain.data.splits import Cuts, Split
from mmtrain.data.tables import SPLITS, Tables, no_rows, split_name, undecoded
from mmtrain.errors import ConfigError

_READERS = {"jsonl": "json", "csv": "csv", "tsv": "csv", "parquet": "parquet", "arrow": "arrow"}


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


def is_saved(root: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote the folder."""
    return any((root / name).is_file() for name in ("dataset_dict.json", "state.json"))


def tables_of(found: Path | Tables, split: Split, *, confine: bool) -> Tables:
    """What a source gave, as tables whose paths stay in their folder.

    Args:
        found: a folder, or the tables themselves.
        split: how a table is cut that stands alone.
        confine: whether a file, of a table or named in one, must lie in the folder.

    Raises:
        ConfigError: as `read_folder` does, and for a table that leads out of the folder.
    """
    if not isinstance(found, Tables):
        return read_folder(data_folder(found, confine=confine), split)
    for folder, file in found.files:
        refuse_outside(data_folder(folder, confine=confine), file)
    return replace(found, folder=data_folder(found.folder, confine=confine))


def read_folder(root: Path, split: Split) -> Tables:
    """The tables of a folder.

    Args:
        root: the folder, as `data_folder` gives it.
        split: how a table is cut that stands alone.

    Raises:
        ConfigError: when there is nothing to read, a split stands twice, one is empty, or leads out of the folder.
    """
    return _saved(root, split) if is_saved(root) else tables_of_folder(root, split, read=_read, make=_dataset)


def tables_of_folder(
    root: Path,
    split: Cuts,
    *,
    read: Callable[[Path, str], Any],
    make: Callable[[Columns], Any],
    most: int | None = None,
) -> Tables:
    """The tables of a folder that were not saved by `datasets`, as `read` reads them and `make` makes them.

    Args:
        root: the folder.
        split: how a table is cut that stands alone.
        read: a table of a file, and of the split that it is for.
        make: a table of columns.
        most: files in folders of classes that are looked at.
    """
    files = tables_in(root)
    for file in files.values():
        refuse_outside(root, file)
    if WHOLE in files:
        return cut(read(files[WHOLE], WHOLE), str(files[WHOLE]), root, split)
    if files:
        splits = {name: read(path, name) for name, path in files.items()}
        others = [path.name for path in passed_over(root, files)]
        notes = [f"{root}: {', '.join(others)} is not read: the splits are train, val and test"] if others else []
        names = {name: str(path) for name, path in files.items()}
        return Tables(splits=splits, names=names, folder=root, notes=notes)
    folders = read_class_folders(root, make, most=most)
    if folders is None:
        raise nothing_in(root)
    if None in folders:
        return cut(folders[None], str(root), root, split)
    splits = {name: folders[name] for name in SPLITS if name in folders}
    return Tables(splits=splits, names={name: f"{root}/{name}" for name in splits}, folder=root)


def cut(table: Any, name: str, folder: Path, split: Cuts) -> Tables:
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
    tables = saved.values() if isinstance(saved, datasets.DatasetDict) else [saved]
    for file in (file["filename"] for table in tables for file in table.cache_files):
        refuse_outside(root, Path(file))
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


def _dataset(columns: Columns) -> Any:
    import datasets

    return datasets.Dataset.from_dict(dict(columns))


def _read(path: Path, split: str) -> Any:
    if not path.stat().st_size:
        raise no_rows(str(path), split)
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)  # it logs what it raises
    kind = ending(path)
    options: dict[str, Any] = {}
    try:
        if kind == "json":  # the reader would make 7 of "007"
            rows = rows_of_json(path)
            table = _dataset({name: [row.get(name) for row in rows] for name in names_in(rows)})
        else:
            if kind in ("csv", "tsv"):
                options = _as_text(path, "\t" if kind == "tsv" else ",")
            elif kind == "jsonl":
                _check_lines(path)  # the reader would take any bytes and fail when they are used
            table = datasets.load_dataset(_READERS[kind], data_files=str(path), split="train", **options)
    # Arrow's own are ValueErrors, TypeErrors (a column of words and numbers) and OSErrors
    except (datasets.exceptions.DatasetGenerationError, ValueError, TypeError, OSError, csv.Error) as error:
        if "corresponds to no data" in str(error) or options.get("features") == {}:
            raise no_rows(str(path), split) from error
        if (cache := datasets_cache_error(error, path)) is not None:
            raise cache from error
        cause = broken_line(path) if kind == "jsonl" else None
        raise unreadable(path, ValueError(cause) if cause else error.__cause__ or error) from error
    if len(table) == 0:
        raise no_rows(str(path), split)
    return undecoded(table)


def unreadable(path: Path, error: BaseException) -> ConfigError:
    """The message for a table that is broken, and where."""
    what = (str(error).strip() or type(error).__name__).splitlines()[0]
    mend = error.mend if isinstance(error, NoRowsError) else "mend the table"
    mend = "save it as UTF-8" if "codec can't decode" in what else mend
    return ConfigError(f"{path} cannot be read as {ending(path)}: {what}\n    {mend}")


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


def _check_lines(path: Path) -> None:
    """Refuse what is not UTF-8, and what is nested so deep that Arrow's reader would end the process."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                check_nesting(line)
            except ValueError as error:
                raise ValueError(not_json(number, error)) from None
