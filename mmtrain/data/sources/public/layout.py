"""Common code of public data sets: finding files, and messages about missing ones with the expected folder."""

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
        root: folder of the data set.
        looks: expected content, for messages.

    Raises:
        ConfigError: if it is missing or is not a folder.
    """

    def __init__(self, root: str | Path, *, looks: str) -> None:
        self.root = Path(root).expanduser()
        self.looks = looks
        self._found: list[Path] = []  # files of the tables
        if not self.root.is_dir():
            what = "is a file, not a folder" if self.root.exists() else "does not exist"
            raise ConfigError(f"data.root = {self.root} {what}\n    fix: set data.root to a folder with {looks}")

    def find(self, *names: str) -> Path | None:
        """The first existing file or folder; names are relative to the root."""
        result = next((p for name in names if (p := self.root / name).is_file() or p.is_dir()), None)
        self._found += [] if result is None else [result]
        return result

    def need(self, *names: str) -> Path:
        """The first existing file or folder.

        Raises:
            ConfigError: if none exists.
        """
        result = self.find(*names)
        if result is None:
            others = f" (nor {', '.join(names[1:])})" if names[1:] else ""
            raise ConfigError(f"{self.root} has no {names[0]}{others}\n    fix: name a folder with {self.looks}")
        return result

    def inside(self, path: Path) -> str:
        """A path relative to the root, as in a table."""
        return path.relative_to(self.root).as_posix()

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """Explain errors while a file is read, such as a truncated file, or one of another data set.

        Raises:
            ConfigError: for content that is not JSON or not UTF-8, or without a key.
        """
        try:
            yield
        except ConfigError:
            raise
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(
                f"{path} does not have the format of this data set: {what}\n"
                f"    fix: download it again; the folder should contain {self.looks}"
            ) from error

    def json(self, path: Path) -> Any:
        """Content of a JSON file."""
        with path.open(encoding="utf-8") as file:
            return json.load(file)

    def lines(self, path: Path) -> Iterator[str]:
        """Non-blank lines of a text file."""
        with path.open(encoding="utf-8-sig") as file:
            yield from (line.rstrip("\r\n") for line in file if line.strip())

    def tables(self, rows: Mapping[str, Sequence[Mapping[str, Any]]], names: Mapping[str, Path]) -> Tables:
        """The tables of a data set.

        Args:
            rows: rows by split; a split without rows is omitted.
            names: file of the rows by split.

        Raises:
            ConfigError: if no split has a row.
        """
        splits = {split: table_of(rows[split]) for split in SPLITS if rows.get(split)}
        if not splits:
            files = ", ".join(str(path) for path in dict.fromkeys(names.values()))
            raise ConfigError(
                f"{files} has no rows\n    fix: download it again; the folder should contain {self.looks}"
            )
        shown = {split: str(names[split]) for split in splits}
        return Tables(splits=splits, names=shown, folder=self.root, files=self.files)

    @property
    def files(self) -> list[tuple[Path, Path]]:
        """Files and folders of the data set, each with the folder that contains it: the root."""
        return [(self.root, path) for path in self._found]


def table_of(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows with equal keys as a `datasets.Dataset`."""
    import datasets

    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in rows[0]})
