"""The tables that stand in a folder, whoever reads them: the `datasets` library, or a check of their first rows."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmtrain.data.tables.class_folders import Columns, read_class_folders
from mmtrain.data.tables.folder_layout import WHOLE, ending, metadata_in, nothing_in, passed_over, tables_in
from mmtrain.data.tables.paths import refuse_outside
from mmtrain.data.tables.row_tables import TEXTS
from mmtrain.data.tables.splits import Cuts
from mmtrain.data.tables.table_error import TableError, encoding_fault
from mmtrain.data.tables.tables import SPLITS, Tables
from mmtrain.errors import ConfigError


def is_saved(root: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote the folder."""
    return any((root / name).is_file() for name in ("dataset_dict.json", "state.json"))


def tables_of_folder(
    root: Path,
    split: Cuts,
    *,
    read: Callable[[Path, str], tuple[Any, Sequence[str]]],
    make: Callable[[Columns], Any],
    most: int | None = None,
) -> Tables:
    """The tables of a folder that were not saved by `datasets`, as `read` reads them and `make` makes them.

    Args:
        root: the folder, or the file of a table that stands alone.
        split: how a table is cut that stands alone.
        read: gives the table of a file, and notes about it; called with the file and the split that it is for.
        make: a table of columns.
        most: files in folders of classes that are looked at.
    """
    if root.is_file():
        root, files = root.parent, {WHOLE: root}
    else:
        files = tables_in(root) or metadata_in(root)
    for file in files.values():
        refuse_outside(root, file)
    if WHOLE in files:
        table, notes = read(files[WHOLE], WHOLE)
        return replace(cut(table, str(files[WHOLE]), root, split), notes=notes)
    if files:
        found = {name: read(path, name) for name, path in files.items()}
        splits = {name: table for name, (table, _) in found.items()}
        others = [path.name for path in passed_over(root, files)]
        notes = [f"{root}: {', '.join(others)} is not read: the splits are train, val and test"] if others else []
        notes += [note for _, own in found.values() for note in own]
        names = {name: str(path) for name, path in files.items()}
        return Tables(splits=splits, names=names, folder=root, notes=notes)
    found_in = read_class_folders(root, make, most=most)
    if found_in is None:
        raise nothing_in(root)
    folders, notes = found_in
    if None in folders:
        return replace(cut(folders[None], str(root), root, split), notes=notes)
    splits = {name: folders[name] for name in SPLITS if name in folders}
    return Tables(splits=splits, names={name: f"{root}/{name}" for name in splits}, folder=root, notes=notes)


def cut(table: Any, name: str, folder: Path, split: Cuts) -> Tables:
    """A lone table as splits."""
    splits = split.cut(table, name)
    return Tables(splits=splits, names=dict.fromkeys(splits, name), folder=folder)


def unreadable(path: Path, error: BaseException) -> ConfigError:
    """The message for a table that is broken, and where."""
    if ending(path) in TEXTS and isinstance(error, ValueError) and not isinstance(error, TableError):
        error = encoding_fault(path) or error
    what = (str(error).strip() or type(error).__name__).splitlines()[0]
    fix = error.fix if isinstance(error, TableError) else "mend the table"
    return ConfigError(f"{path} cannot be read as {ending(path)}: {what}\n    {fix}")
