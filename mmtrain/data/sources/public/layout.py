"""What every public data set needs: to find its files, to say what is missing and how the folder should look."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmtrain.data.tables.tables import SPLITS, Tables
from mmtrain.errors import ConfigError


class Layout:
    """The folder of a data set.

    Args:
        root: the folder.
        looks: how it should look, for messages.

    Raises:
        ConfigError: when it is missing or is not a folder.
    """

    def __init__(self, root: str | Path, *, looks: str) -> None:
        self.root = Path(root).expanduser()
        self.looks = looks
        self._found: list[Path] = []  # that the tables are made of
        if not self.root.is_dir():
            what = "is a file, not a folder" if self.root.exists() else "does not exist"
            raise ConfigError(f"data.root = {self.root} {what}\n    set data.root to a folder with {looks}")

    def find(self, *names: str) -> Path | None:
        """The first of these files or folders that is there; names are relative to the root."""
        found = next((p for name in names if (p := self.root / name).is_file() or p.is_dir()), None)
        self._found += [] if found is None else [found]
        return found

    def need(self, *names: str) -> Path:
        """The first of these files or folders that is there.

        Raises:
            ConfigError: when none is.
        """
        found = self.find(*names)
        if found is None:
            others = f" (nor {', '.join(names[1:])})" if names[1:] else ""
            raise ConfigError(f"{self.root} has no {names[0]}{others}\n    it should hold {self.looks}")
        return found

    def inside(self, path: Path) -> str:
        """A path as a table names it: relative to the root."""
        return path.relative_to(self.root).as_posix()

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """Around the reading of a file: one that was cut short, or is not of this data set, is named.

        Raises:
            ConfigError: for what is not JSON, not UTF-8, or lacks a key.
        """
        try:
            yield
        except ConfigError:
            raise
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(
                f"{path} is not what it is in this data set: {what}\n"
                f"    download it again; the folder should hold {self.looks}"
            ) from error

    def json(self, path: Path) -> Any:
        """What a JSON file says."""
        with path.open(encoding="utf-8") as file:
            return json.load(file)

    def lines(self, path: Path) -> Iterator[str]:
        """The lines of a text file that are not blank."""
        with path.open(encoding="utf-8-sig") as file:
            yield from (line.rstrip("\r\n") for line in file if line.strip())

    def tables(self, rows: Mapping[str, Sequence[Mapping[str, Any]]], names: Mapping[str, Path]) -> Tables:
        """The tables of a data set.

        Args:
            rows: by split; a split without rows is left out.
            names: by split, the file that the rows came from.

        Raises:
            ConfigError: when no split has a row.
        """
        splits = {split: table_of(rows[split]) for split in SPLITS if rows.get(split)}
        if not splits:
            files = ", ".join(str(path) for path in dict.fromkeys(names.values()))
            raise ConfigError(f"{files} has no rows\n    download it again; the folder should hold {self.looks}")
        shown = {split: str(names[split]) for split in splits}
        return Tables(splits=splits, names=shown, folder=self.root, files=self.files)

    @property
    def files(self) -> list[tuple[Path, Path]]:
        """Files and folders that were found, each with the folder that it must not lead out of: the root."""
        return [(self.root, path) for path in self._found]


def table_of(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows that all have the same keys as a `datasets.Dataset`."""
    import datasets

    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in rows[0]})
