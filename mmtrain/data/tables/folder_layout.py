"""The tables of a folder, by their names alone, without opening one; and messages for a folder without tables."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from mmtrain.data.tables.class_folders import KIND_OF, split_folders
from mmtrain.data.tables.row_tables import is_metadata_name
from mmtrain.data.tables.tables import SPLITS, split_name
from mmtrain.errors import ConfigError

ENDINGS = ("jsonl", "csv", "tsv", "json", "parquet", "arrow")
SET_ROOT = "set data.root=DIR, the folder with train.jsonl (or train.csv, train.parquet ...)"
WHOLE = "whole"  # a lone table, which is split
# Tables that other programs write, and what makes one of them that is read here.
_FOREIGN: Mapping[str, str] = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save it as {stem}.csv, in the program that made it"),
    ".ndjson": "mv {path} {stem}.jsonl",
    **{f".{e}.gz": "gunzip {path}" for e in ENDINGS},
    **{f".{e}.zip": "unzip {path} -d {root}" for e in ENDINGS},
    ".feather": "write it with pandas: DataFrame.to_parquet('{stem}.parquet')",
    **dict.fromkeys((".pkl", ".pickle"), "write it with pandas: DataFrame.to_parquet('{stem}.parquet')"),
}


def fault_of_split_file(split: str, file: Path) -> str | None:
    """What is wrong with the file of a split that the user names; None when it can be read."""
    what = f"data.{split}={file}"
    if file.is_dir():
        return f"{what}: it is a folder\n    fix: name its table, or set data.root={file} without data.{split}"
    if not file.is_file():
        return f"{what}: there is no such file\n    fix: data.{split}=FILE, relative to {Path.cwd()} or absolute"
    if ending(file) in ENDINGS:
        return None
    if _is_foreign(file):
        return str(_foreign(file))
    return f"{what}: not one of {', '.join(f'.{e}' for e in ENDINGS)}\n    fix: save it as one of these"


def tables_in(root: Path) -> dict[str, Path]:
    """The table of each split; a lone one as WHOLE; {} for folders of classes and for an empty folder.

    A lone .json may be anything, such as the names of the classes: it counts as a table only by the name of a split.

    Raises:
        ConfigError: if it is unclear which table is which split, or the format of a table is not supported.
    """
    files = sorted(p for p in root.iterdir() if p.is_file() and not p.name.startswith("."))
    tables = [p for p in files if ending(p) in ENDINGS]
    named: dict[str, Path] = {}
    for path in tables:
        name = split_name(path.stem)
        if name is not None and name in named:
            raise ConfigError(
                f"{root} has {named[name].name} and {path.name}: which is the {name} split?\n    keep one"
            )
        if name is not None:
            named[name] = path
    for path in files:
        name = split_name(path.name.partition(".")[0])
        if name is not None and name not in named and _is_foreign(path):
            raise _foreign(path)
    if named:
        return {name: named[name] for name in SPLITS if name in named}
    alone = [p for p in tables if ending(p) != "json"]
    if len(alone) > 1:
        raise _several(root, alone)
    return {WHOLE: alone[0]} if alone else {}


def metadata_in(root: Path) -> dict[str, Path]:
    """By split, the table metadata in its folder, as the imagefolder of `datasets` has it; nothing without training."""
    results = {split: _metadata(folder) for split, folder in split_folders(root).items()}
    if results.get("train") is None:
        return {}
    return {split: path for split in SPLITS if (path := results.get(split)) is not None}


def _metadata(folder: Path) -> Path | None:
    return next((p for p in sorted(folder.iterdir()) if is_metadata_name(p)), None)


def ignored_files(root: Path, read: Mapping[str, Path]) -> Iterator[Path]:
    """Tables that are not read."""
    for path in sorted(root.iterdir()):
        if path.is_file() and ending(path) in ENDINGS and ending(path) != "json" and path not in read.values():
            yield path


def ending(path: Path) -> str:
    """Of a file's name, without the dot."""
    return path.suffix[1:].lower()


def _is_foreign(path: Path) -> bool:
    return path.name.lower().endswith(tuple(_FOREIGN))


def _foreign(path: Path) -> ConfigError:
    last = next(e for e in _FOREIGN if path.name.lower().endswith(e))
    fix = _FOREIGN[last].format(path=path, stem=str(path)[: -len(last)], root=path.parent)
    return ConfigError(f"{path}: a table that ends in {last} is not read\n    {fix}")


def _several(root: Path, tables: list[Path]) -> ConfigError:
    """Names such as train_data.csv and flowers-test.csv say which is which."""
    meant: dict[str, Path] = {}
    for path in tables:
        words = path.stem.replace("-", "_").replace(".", "_").split("_")
        messages = {name for word in words if (name := split_name(word)) is not None}
        if len(messages) == 1:
            meant.setdefault(messages.pop(), path)
    moves = " && ".join(f"mv {path} {root / split}{path.suffix}" for split, path in meant.items())
    fix = (
        moves
        if "train" in meant
        else "name them train, val and test, or keep one, which is then cut as data.split says"
    )
    return ConfigError(f"{root} has the tables {', '.join(p.name for p in tables)}: which is for training?\n    {fix}")


def _with_files(paths: Sequence[Path]) -> str | None:
    """The first folder that has pictures, sounds or films in it or one below."""
    for folder in [p for p in paths if p.is_dir()]:
        inner = [p for p in folder.iterdir() if p.is_dir()][:10]
        if any(p.suffix.lower() in KIND_OF for place in (folder, *inner) for p in islice(place.iterdir(), 100)):
            return folder.name
    return None


def explain_no_tables(root: Path) -> ConfigError:
    """The message for a folder without tables and without folders of classes."""
    available = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    foreign = next((p for p in available if p.is_file() and _is_foreign(p)), None)
    if foreign is not None:
        return _foreign(foreign)
    description = ", ".join(p.name for p in available[:8]) + (" ..." if len(available) > 8 else "")
    what = f"{root} has no train, val or test table, and no folder a class; it holds {description or 'nothing'}"
    for folder in [p for p in available if p.is_dir()]:
        tables = sorted(p for p in folder.iterdir() if ending(p) in ENDINGS)
        has_files = any(p.suffix.lower() in KIND_OF for p in folder.iterdir())
        if tables and not has_files and (name := _with_files(available)) is not None:
            return ConfigError(
                f"{what}\n    move {tables[0]} into {root}: the files of {name} must be below its folder"
            )
        if tables:
            return ConfigError(f"{what}\n    set data.root={folder}, which holds tables")
    files = [p for p in available if p.is_file() and p.suffix.lower() in KIND_OF]
    if files:
        kind = KIND_OF[files[0].suffix.lower()]
        line = f'{{"{kind}": "{files[0].name}", "caption": "what it shows", "label": "its class"}}'
        return ConfigError(
            f"{what}\n    write {root / 'train.jsonl'} with a line for each file, such as {line}\n"
            f"    or move the files of each class into a folder of its own: {root}/CLASS/{files[0].name}"
        )
    endings = ", ".join(f".{e}" for e in ENDINGS)
    lone = next((p for p in available if p.is_file() and ending(p) == "json"), None)
    name_it = f"set data.root={lone}, if that is the table, or " if lone is not None else ""
    return ConfigError(
        f"{what}\n    {name_it}name a table train with one of {endings}, or put files into a folder a class"
    )
