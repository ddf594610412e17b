"""Reads the tables of a folder with the `datasets` library. An embedded data set first writes such a folder.

DIR/{train,val,test}.{jsonl,csv,tsv,json,parquet,arrow}, or one such table to divide into splits, or
DIR/SPLIT/metadata.{csv,tsv,json,jsonl} with the column file_name, or DIR/[SPLIT/]CLASS/file, or what `save_to_disk` of
`datasets` wrote.
"""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmtrain.data.sources.caches import datasets_cache_error
from mmtrain.data.tables.class_folders import Columns
from mmtrain.data.tables.columns import Column
from mmtrain.data.tables.file_lookup import locate_files
from mmtrain.data.tables.folder_layout import ENDINGS, SET_ROOT, ending, fault_of_split_file
from mmtrain.data.tables.folder_tables import SplitFiles, cut, cut_training, is_saved, tables_of_folder, unreadable
from mmtrain.data.tables.parquet_columns import readable_columns
from mmtrain.data.tables.paths import data_folder, refuse_outside
from mmtrain.data.tables.row_tables import rows_table
from mmtrain.data.tables.splits import Split
from mmtrain.data.tables.tables import SPLITS, Tables, no_rows, split_name, undecoded
from mmtrain.errors import ConfigError


def existing_folder(
    root: str | Path | None,
    train: str | Path | None = None,  # missing in parts of mixtures and in run folders of earlier versions
    val: str | Path | None = None,
    test: str | Path | None = None,
) -> Path | SplitFiles:
    """A folder of tables, the file of a table, or the file of each split.

    Args:
        root: the folder, or the file of a table. With files of splits, the folder of their relative paths; if
            None, the paths are relative to each file.
        train: a file.
        val: a file.
        test: a file.

    Raises:
        ConfigError: if nothing is given, a file is missing, or a file is of another kind.
    """
    named = {"train": train, "val": val, "test": test}
    files = {split: Path(file).expanduser() for split, file in named.items() if file is not None}
    if not files:
        if root is None:
            raise ConfigError(f"data.root: not set\n    fix: {SET_ROOT}")
        return folder_of_tables(root)
    for split, file in files.items():
        if (fault := fault_of_split_file(split, file)) is not None:
            raise ConfigError(fault)
    return SplitFiles(files, None if root is None else Path(root).expanduser().absolute())


def folder_of_tables(root: str | Path) -> Path:
    """Check the path of a folder or of the file of a table, and return it.

    Raises:
        ConfigError: if it is missing, or is a file of another kind.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir() and not (folder.is_file() and ending(folder) in ENDINGS):
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ConfigError(
            f"data.root = {folder} {what}\n"
            "    set data.root to the folder that holds train.jsonl (or .csv, .parquet ...)"
        )
    return folder


def tables_of(
    source: Path | SplitFiles | Tables,
    split: Split,
    *,
    restrict_paths: bool,
    wanted: Mapping[str, Column | None] | None = None,
) -> Tables:
    """The tables of a source. Their paths stay in their folder.

    Args:
        source: a folder, the files of the splits, or the tables themselves.
        split: how a lone table is divided.
        restrict_paths: whether files of tables and files in their cells must be in the folder.
        wanted: as of `tables_of_folder`.

    Raises:
        ConfigError: as `read_folder`, and for a table outside the folder.
    """
    if isinstance(source, SplitFiles):
        tables = read_folder(source, split)
        folders = {name: data_folder(folder, restrict_paths=restrict_paths) for name, folder in tables.folders.items()}
        return replace(tables, folder=data_folder(tables.folder, restrict_paths=restrict_paths), folders=folders)
    if not isinstance(source, Tables):
        return read_folder(data_folder(source, restrict_paths=restrict_paths), split, wanted)
    for folder, file in source.files:
        refuse_outside(data_folder(folder, restrict_paths=restrict_paths), file)
    return replace(source, folder=data_folder(source.folder, restrict_paths=restrict_paths))


def read_folder(root: Path | SplitFiles, split: Split, wanted: Mapping[str, Column | None] | None = None) -> Tables:
    """The tables of a folder.

    Args:
        root: the folder, as `data_folder` returns it, the file of a lone table, or the file of each split.
        split: how a lone table is divided.
        wanted: as of `tables_of_folder`.

    Raises:
        ConfigError: if there is no table, or if a split has two tables, is empty or leads out of the folder.
    """
    if isinstance(root, Path) and is_saved(root):
        return _saved(root, split)
    return locate_files(tables_of_folder(root, split, read=_read, make=_dataset, wanted=wanted))


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


def of_datasets(dataset: Any, name: str, folder: Path, split: Split) -> Tables:
    """Tables of a `Dataset` or of the train, val and test splits of a `DatasetDict`. Other splits are ignored.

    Raises:
        ConfigError: if it has none of these splits, or one is empty.
    """
    import datasets

    if isinstance(dataset, datasets.Dataset):
        return cut(undecoded(dataset), name, folder, split)
    known = {ours: dataset[theirs] for theirs in dataset if (ours := split_name(theirs)) is not None}
    if not known:
        raise ConfigError(f"{name} has the splits {', '.join(dataset)}\n    rename one to train")
    if list(known) == ["train"]:
        return cut_training(undecoded(known["train"]), name, folder, split)
    for ours, table in known.items():
        if len(table) == 0:
            raise no_rows(name, ours)
    splits = {ours: undecoded(known[ours]) for ours in SPLITS if ours in known}
    return Tables(splits=splits, names={ours: f"{name} ({ours})" for ours in splits}, folder=folder)


def _dataset(columns: Columns) -> Any:
    import datasets

    return datasets.Dataset.from_dict(dict(columns))


def _options(path: Path, columns: Sequence[str]) -> dict[str, Any]:
    """Options with which `datasets` reads only some columns of a parquet file."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    some = pa.schema([schema.field(name) for name in columns], metadata=schema.metadata)
    return {"columns": columns, "features": datasets.Features.from_arrow_schema(some)}


def _read(path: Path, split: str) -> tuple[Any, Sequence[str]]:
    """The table of a file, and notes for the user."""
    if not path.stat().st_size:
        raise no_rows(str(path), split)
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)  # it also logs what it raises
    kind = ending(path)
    notes: Sequence[str] = ()
    try:
        if kind in ("parquet", "arrow"):
            name = glob.escape(str(path))  # it expects a pattern
            columns, notes = readable_columns(path) if kind == "parquet" else (None, ())
            options = {} if columns is None or not notes else _options(path, columns)
            table = undecoded(datasets.load_dataset(kind, data_files=name, split="train", **options))
        else:
            table, notes = rows_table(path)
    # Arrow raises ValueErrors, TypeErrors and OSErrors
    except (datasets.exceptions.DatasetGenerationError, ValueError, TypeError, OSError) as error:
        if "corresponds to no data" in str(error):
            raise no_rows(str(path), split) from error
        if (cache := datasets_cache_error(error, path)) is not None:
            raise cache from error
        raise unreadable(path, error.__cause__ or error) from error
    if len(table) == 0:
        raise no_rows(str(path), split)
    return table, notes
