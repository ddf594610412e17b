"""The rule for a folder of tables. Faults in its first rows are in one report with those of the configuration."""

from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from mmtrain.config.provenance import ComposedConfig
from mmtrain.config.suggestions import TABLES

_FOLDER = "mmtrain.data.sources.files.existing_folder"


def rule_tables(run: ComposedConfig) -> Iterator[str]:
    """Tables have the columns that tasks read and learn, and their cells have the right type."""
    yield from _unused_columns(run)
    is_folder = run.get("data.source._target_") == _FOLDER
    if not is_folder or not isinstance(run.get("data.columns"), DictConfig):
        return
    result = _tables(run)
    if result is not None:
        from mmtrain.config.table_probe import faults_of_folder  # imports numpy, which most runs do not need here

        yield from faults_of_folder(run, result)


def _tables(run: ComposedConfig) -> Path | dict[str, Path] | None:
    """The folder, or the file of each split; None if one does not exist, which `missing_tables` reports."""
    root = run.get("data.root")
    named = {split: run.get(f"data.source.{split}") for split in ("train", "val", "test")}
    files = {split: Path(str(file)).expanduser() for split, file in named.items() if file is not None}
    if files:
        return files if all(map(_is_table, files.values())) else None
    folder = None if root is None else Path(str(root)).expanduser()
    return folder if folder is not None and (folder.is_dir() or _is_table(folder)) else None


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in TABLES


def missing_tables(run: ComposedConfig) -> Iterator[str]:
    """The files of splits exist, and a folder or a file is given."""
    if run.get("data.source._target_") != _FOLDER:
        return
    from mmtrain.data.tables.folder_layout import (
        SET_ROOT,
        fault_of_split_file,
    )  # imports much, which most runs do not need here

    named = {split: run.get(f"data.source.{split}") for split in ("train", "val", "test")}
    if run.get("data.source.root") is None and not any(named.values()):
        yield f"data.root: not set ({run.where('data.root')})\n    fix: {SET_ROOT}"
    for split, file in named.items():
        if file is not None and (fault := fault_of_split_file(split, Path(str(file)).expanduser())) is not None:
            what, *fix = fault.splitlines()
            yield "\n".join([f"{what} ({run.where(f'data.{split}')})", *fix])


def _unused_columns(run: ComposedConfig) -> Iterator[str]:
    """A column of the command line for a name that is neither an input nor a target."""
    known = [*map(str, run.cfg.data.inputs), *map(str, run.cfg.data.targets)]
    for key in [key for key in run.set_by if key.startswith("data.columns.")]:
        name = key.removeprefix("data.columns.")
        if name not in known and run.get(key) is not None:
            yield (
                f"{key}={run.get(key)}: {name} is neither an input nor a target of the data ({run.where(key)})\n"
                f"    fix: use one of {', '.join(known)}, or add one: +input@data.inputs.{name}=text, or"
                f" +target@data.targets.{name}=class"
            )
