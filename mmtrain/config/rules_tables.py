"""The rule of a folder of tables: what its first rows say is in one report with the faults of keys."""

from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from mmtrain.config.provenance import Composed
from mmtrain.config.suggestions import TABLES

_FOLDER = "mmtrain.data.sources.files.existing_folder"


def rule_tables(run: Composed) -> Iterator[str]:
    """The tables of a folder have the columns that are read and learned, and cells that can be that."""
    yield from _columns_of_nothing(run)
    is_folder = run.get("data.source._target_") == _FOLDER
    if not is_folder or not isinstance(run.get("data.columns"), DictConfig):
        return
    found = _tables(run)
    if found is not None:
        from mmtrain.config.table_probe import faults_of_folder  # it imports numpy, and most runs have other data

        yield from faults_of_folder(run, found)


def _tables(run: Composed) -> Path | dict[str, Path] | None:
    """The folder or the file of each split; None for what is not there: rule_files says it."""
    root = run.get("data.root")
    named = {split: run.get(f"data.source.{split}") for split in ("train", "val", "test")}
    files = {split: Path(str(file)).expanduser() for split, file in named.items() if file is not None}
    if files:
        return files if all(map(_is_table, files.values())) else None
    folder = None if root is None else Path(str(root)).expanduser()
    return folder if folder is not None and (folder.is_dir() or _is_table(folder)) else None


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in TABLES


def missing_tables(run: Composed) -> Iterator[str]:
    """Files of splits that the user names; or that neither a folder nor a file is named."""
    if run.get("data.source._target_") != _FOLDER:
        return
    from mmtrain.data.tables.folder_layout import (
        SET_ROOT,
        fault_of_split_file,
    )  # it imports much, and most runs have other data

    named = {split: run.get(f"data.source.{split}") for split in ("train", "val", "test")}
    if run.get("data.source.root") is None and not any(named.values()):
        yield f"data.root is not set ({run.where('data.root')})\n    {SET_ROOT}"
    for split, file in named.items():
        if file is not None and (fault := fault_of_split_file(split, Path(str(file)).expanduser())) is not None:
            what, *fix = fault.splitlines()
            yield "\n".join([f"{what} ({run.where(f'data.{split}')})", *fix])


def _columns_of_nothing(run: Composed) -> Iterator[str]:
    """A column that the command line names for what is neither read nor learned."""
    known = [*map(str, run.cfg.data.inputs), *map(str, run.cfg.data.targets)]
    for key in [key for key in run.set_by if key.startswith("data.columns.")]:
        name = key.removeprefix("data.columns.")
        if name not in known and run.get(key) is not None:
            yield (
                f"{key} = {run.get(key)}, but {name} is neither an input nor a target of the data ({run.where(key)})\n"
                f"    it can be {', '.join(known)}, or a new one: +input@data.inputs.{name}=text, or"
                f" +target@data.targets.{name}=class"
            )
