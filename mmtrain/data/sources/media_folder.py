"""A folder of pictures and sounds without tables or classes: every file below it is a row, to be indexed."""

import os
from pathlib import Path

from mmtrain.data.sources.files import folder_of_tables
from mmtrain.data.tables.class_folders import KIND_OF, KINDS, is_hidden
from mmtrain.data.tables.tables import Tables
from mmtrain.errors import ConfigError


def read_pictures(root: str | Path) -> Tables:
    """One split, test, with a row a file in the order of their paths, which are their ids.

    Args:
        root: the folder; names that begin with a dot are skipped.

    Raises:
        ConfigError: when it is none, or there is no picture, sound or film below it.
    """
    import datasets

    folder = folder_of_tables(root)
    names = sorted(_files(folder))  # of a file, none
    if not names:
        endings = " ".join(KINDS["image"])
        raise ConfigError(f"data.root = {folder}: no file below it is a picture ({endings}), a sound or a film")
    kinds = {kind: [KIND_OF[Path(name).suffix.lower()] == kind for name in names] for kind in KINDS}
    columns: dict[str, list[str | None]] = {"id": list(names)}
    for kind, has_kind in kinds.items():
        if any(has_kind):
            columns[kind] = [name if has else None for name, has in zip(names, has_kind, strict=True)]
    return Tables(splits={"test": datasets.Dataset.from_dict(columns)}, names={"test": str(folder)}, folder=folder)


def _files(folder: Path) -> list[str]:
    results = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        paths = [Path(place) / name for name in names if not is_hidden(name)]
        results += [path.relative_to(folder).as_posix() for path in paths if path.suffix.lower() in KIND_OF]
    return results
