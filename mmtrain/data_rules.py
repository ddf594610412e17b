"""The rule of a folder of tables: what its first rows say is in one report with the faults of keys."""

import importlib
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from mmtrain.composed import Composed

_FOLDER = "mmtrain.data.files.existing_folder"


def rule_tables(run: Composed) -> Iterator[str]:
    """The tables of a folder have the columns that are read and learned, and cells that can be that."""
    root = run.get("data.root")
    if (
        run.get("data.source._target_") != _FOLDER
        or root is None
        or not isinstance(run.get("data.columns"), DictConfig)
    ):
        return
    folder = Path(str(root)).expanduser()
    if folder.is_dir():  # else rule_files says it
        # it imports numpy, and most runs have other data
        yield from importlib.import_module("mmtrain.folder_faults").faults_of_folder(run, folder)
