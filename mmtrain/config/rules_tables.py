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
    root = run.get("data.root")
    if (
        run.get("data.source._target_") != _FOLDER
        or root is None
        or not isinstance(run.get("data.columns"), DictConfig)
    ):
        return
    folder = Path(str(root)).expanduser()
    if folder.is_dir() or _is_table(folder):  # else rule_files says it
        from mmtrain.config.table_probe import faults_of_folder  # it imports numpy, and most runs have other data

        yield from faults_of_folder(run, folder)


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in TABLES


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
