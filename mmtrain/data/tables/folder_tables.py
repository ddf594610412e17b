"""The tables of a folder, for the two that read them: the `datasets` library, and checks of the first rows."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mmtrain.data.tables.class_folders import KIND_OF, Columns, folders_with_files, kinds_in, read_class_folders
from mmtrain.data.tables.columns import Column, find_columns
from mmtrain.data.tables.folder_layout import WHOLE, ending, explain_no_tables, ignored_files, metadata_in, tables_in
from mmtrain.data.tables.paths import refuse_outside
from mmtrain.data.tables.row_tables import TEXTS
from mmtrain.data.tables.splits import Cuts
from mmtrain.data.tables.table_error import TableError, encoding_fault
from mmtrain.data.tables.tables import SPLITS, Tables, readable_cell, rows_at
from mmtrain.errors import ConfigError

_ROWS, _LOOKED_AT = 20, 100  # of a table, and files, to see whether the one names the others
_SHORTEST, _LONGEST = 5, 200  # characters of the name of a file without its ending


def is_saved(root: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote the folder."""
    return any((root / name).is_file() for name in ("dataset_dict.json", "state.json"))


@dataclass(frozen=True)
class SplitFiles:
    """A file for each split, wherever they are.

    Attributes:
        files: by split, its table.
        base: what relative paths in them start from; None for the folder of each table.
    """

    files: Mapping[str, Path]
    base: Path | None

    def folder_of(self, split: str) -> Path:
        """What relative paths of a split start from."""
        return self.files[split].absolute().parent if self.base is None else self.base


def tables_of_folder(
    root: Path | SplitFiles,
    split: Cuts,
    *,
    read: Callable[[Path, str], tuple[Any, Sequence[str]]],
    make: Callable[[Columns], Any],
    most: int | None = None,
    wanted: Mapping[str, Column | None] | None = None,
) -> Tables:
    """The tables of a folder that were not saved by `datasets`, as `read` reads them and `make` makes them.

    Args:
        root: the folder, the file of a lone table, or the file of each split.
        split: how a lone table is split.
        read: gives the table of a file, and notes about it; called with the file and the split that it is for.
        make: a table of columns.
        most: maximum number of files in folders of classes that are read.
        wanted: by input and target that the run reads, its column; it decides between a table and class folders.
    """
    if isinstance(root, SplitFiles):
        return _of_files(root, split, read)
    if root.is_file():
        root, files, class_folders = root.parent, {WHOLE: root}, []
    else:
        files = tables_in(root) or metadata_in(root)
        class_folders = folders_with_files(root) if WHOLE in files else []
    for file in files.values():
        refuse_outside(root, file)
    if WHOLE in files:
        table, notes = read(files[WHOLE], WHOLE)
        if not class_folders or not _is_stray(table, class_folders, wanted or {}):
            result = cut(table, str(files[WHOLE]), root, split)
            return replace(result, notes=[*notes, *result.notes, *_note_of_folders(files[WHOLE], table, class_folders)])
        names = ", ".join(folder.name for folder in class_folders[:8])
        stray = [
            f"{root}: the folders {names} are read, and {files[WHOLE].name} is not: it names none of their files and"
            f" has fewer of the columns that this run needs\n    to read the table: data.root={files[WHOLE]}"
        ]
    elif files:
        parts = {name: read(path, name) for name, path in files.items()}
        others = [path.name for path in ignored_files(root, files)]
        notes = [f"{root}: {', '.join(others)} is not read: the splits are train, val and test"] if others else []
        result = _of_parts(parts, files, root, split)
        return replace(result, notes=[*notes, *result.notes])
    else:
        stray = []
    found_in = read_class_folders(root, make, most=most)
    if found_in is None:
        raise explain_no_tables(root)
    folders, notes = found_in
    if set(folders) <= {None, "train"}:
        (table,), (name,) = folders.values(), folders
        result = (
            cut(table, str(root), root, split) if name is None else cut_training(table, f"{root}/{name}", root, split)
        )
        return replace(result, notes=[*stray, *notes, *result.notes])
    splits = {name: folders[name] for name in SPLITS if name in folders}
    names_of = {name: f"{root}/{name}" for name in splits}
    return Tables(splits=splits, names=names_of, folder=root, notes=[*stray, *notes])


def _of_files(root: SplitFiles, split: Cuts, read: Callable[[Path, str], tuple[Any, Sequence[str]]]) -> Tables:
    parts = {name: read(path, name) for name, path in root.files.items()}
    folders = {name: root.folder_of(name) for name in root.files}
    first = next(iter(folders.values()))
    same = all(folder == first for folder in folders.values())
    folder = first if same else Path(os.path.commonpath(list(folders.values())))
    result = _of_parts(parts, root.files, folder, split)
    return result if same else replace(result, folders=folders)


def _of_parts(
    parts: Mapping[str, tuple[Any, Sequence[str]]], files: Mapping[str, Path], folder: Path, split: Cuts
) -> Tables:
    """The tables of splits. One for training alone is cut, as those of the hub are."""
    notes = [note for _, own in parts.values() for note in own]
    if list(parts) == ["train"]:
        result = cut_training(parts["train"][0], str(files["train"]), folder, split)
        return replace(result, notes=[*notes, *result.notes])
    splits = {name: parts[name][0] for name in SPLITS if name in parts}
    return Tables(splits=splits, names={name: str(files[name]) for name in splits}, folder=folder, notes=notes)


def _is_stray(table: Any, class_folders: Sequence[Path], wanted: Mapping[str, Column | None]) -> bool:
    """Whether class folders give more of what is wanted than a table next to them, which names none of their files."""
    names = table.column_names
    named = [part for c in wanted.values() if c is not None for part in ([c] if isinstance(c, str) else c)]
    if any(column in names for column in named) or _names_files(table, class_folders):
        return False
    usual = find_columns(names, {name: None for name, column in wanted.items() if column is None}, where="")
    offered = {"label", *kinds_in(class_folders)} & set(wanted)
    return len(offered) > len(usual)


def _names_files(table: Any, class_folders: Sequence[Path]) -> bool:
    """Whether a cell of the first rows names a file in the folders, with or without its folder and ending."""
    endings = {p.suffix for folder in class_folders for p in islice(folder.rglob("*"), _LOOKED_AT) if p.suffix}
    root = class_folders[0].parent
    for row in rows_at(table, range(min(len(table), _ROWS))):
        cells = [readable_cell(row, column) for column in table.column_names]
        for cell in [str(cell) for cell in cells if isinstance(cell, str | int) and _can_be_name(str(cell))]:
            places = [folder / f"{cell}{ending}" for folder in (root, *class_folders) for ending in ("", *endings)]
            if any(os.path.isfile(place) for place in places):  # noqa: PTH113 - any text
                return True
    return False


def _can_be_name(cell: str) -> bool:
    """Whether a cell is more than a small number, which the name of a file may well be, too."""
    return _SHORTEST <= len(cell) < _LONGEST or Path(cell).suffix.lower() in KIND_OF


def _note_of_folders(file: Path, table: Any, class_folders: Sequence[Path]) -> list[str]:
    """That a table is read, and not the class folders next to it."""
    if not class_folders or _names_files(table, class_folders):
        return []
    names = ", ".join(folder.name for folder in class_folders[:8])
    return [
        f"{file}: this table is read, and the folders next to it are not read as classes: {names}\n"
        f"    to read them as classes: mv {file} {file}.unused"
    ]


def cut(table: Any, name: str, folder: Path, split: Cuts) -> Tables:
    """A lone table as splits."""
    return _of_cut(table, split.cut(table, name), name, folder, split)


def cut_training(table: Any, name: str, folder: Path, split: Cuts) -> Tables:
    """A table for training as splits, when there is no table for validation or test."""
    return _of_cut(table, split.cut_training(table, name), name, folder, split)


def _of_cut(table: Any, splits: Mapping[str, Any], name: str, folder: Path, split: Cuts) -> Tables:
    note = split.note(table, splits, name)
    notes = [] if note is None else [note]
    return Tables(splits=splits, names=dict.fromkeys(splits, name), folder=folder, notes=notes)


def unreadable(path: Path, error: BaseException) -> ConfigError:
    """The message for a table that is broken, and where."""
    if ending(path) in TEXTS and isinstance(error, ValueError) and not isinstance(error, TableError):
        error = encoding_fault(path) or error
    what = (str(error).strip() or type(error).__name__).splitlines()[0]
    fix = error.fix if isinstance(error, TableError) else "correct the table"
    return ConfigError(f"{path} cannot be read as {ending(path)}: {what}\n    {fix}")
