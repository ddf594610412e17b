"""Where shards lie: patterns to files, local or anything that fsspec can open, and the cache of their indices."""

import hashlib
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from mmtrain.errors import ConfigError, WriteError
from mmtrain.io.atomic import atomic_write

Index = dict[str, np.ndarray]
FORMAT = 1  # raise it when an index means something else, so that nobody reads an old one
BLOCK = 1 << 16  # bytes that a remote file is read in at least
_WILD = re.compile(r"[*?\[]")
WAITS = (0.5, 2.0, 8.0)  # seconds before a server is asked again

T = TypeVar("T")


class Place(NamedTuple):
    """A file and what tells whether it was changed."""

    path: str
    size: int
    stamp: str


def is_remote(path: str) -> bool:
    """Whether a path is for fsspec: https://..., s3://..., hf://...

    >>> is_remote("https://host/a.tar"), is_remote("data/a.tar")
    (True, False)
    """
    return "://" in path


def remote_errors() -> tuple[type[Exception], ...]:
    """What a file system raises that cannot give what it is asked for; aiohttp's have no common base with the rest."""
    try:
        from aiohttp import ClientError
    except ImportError:  # comes with fsspec's http, which not everybody needs
        return (OSError, ValueError)
    return (OSError, ValueError, ClientError)


def patiently(read: Callable[[], T], path: str) -> T:
    """What `read` gives. A server that fails is asked again: a hiccup must not change what a run sees."""
    for wait in WAITS if is_remote(path) else ():
        try:
            return read()
        except FileNotFoundError:
            break
        except remote_errors():
            time.sleep(wait)
    return read()


def suffix_of(path: str) -> str:
    """The ending of a path or a URL.

    >>> suffix_of("https://host/a.tar?key=1.2"), suffix_of("a.v1.parquet")
    ('.tar', '.parquet')
    """
    return PurePosixPath(path.partition("?")[0] if is_remote(path) else path).suffix


def opened(path: str) -> BinaryIO:
    """A file, to be read anywhere in it."""
    if not is_remote(path):
        return Path(path).open("rb")
    system, inner = _system(path)
    return system.open(inner, mode="rb", block_size=BLOCK, cache_type="readahead")


def _system(path: str) -> tuple[Any, str]:
    """The file system of this process (fsspec keeps one a process) and the path in it."""
    from fsspec.core import url_to_fs

    if any(re.match(r"reference(:|$)", part) for part in path.split("::")):
        raise ConfigError(
            f"{path}: a reference file system fills in templates of its author's and is not read\n"
            "    name the shards themselves"
        )
    try:
        return url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{path} cannot be opened: {error}\n    install what it needs, or mend the path") from error


def place_of(path: str) -> Place:
    """A file's size and when it was changed, or its version.

    Raises:
        ConfigError: when it is not there.
    """
    if not is_remote(path):
        try:
            stat = Path(path).stat()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}\n    mend the path or the pattern of the shards") from error
        if not S_ISREG(stat.st_mode):  # to open a pipe would wait for ever
            raise ConfigError(f"{path} is no regular file\n    fix the pattern of the shards")
        return Place(path, stat.st_size, str(stat.st_mtime_ns))
    system, inner = _system(path)
    try:
        info = patiently(lambda: system.info(inner), path)
    except remote_errors() as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ConfigError(f"{path}: {reason}\n    mend the path or the pattern of the shards") from error
    if info.get("size") is None:
        raise ConfigError(f"{path}: its server does not say how large it is\n    copy the shards to another place")
    marks = ("mtime", "LastModified", "last_modified", "ETag", "etag", "created")
    return Place(path, int(info["size"]), next((str(info[m]) for m in marks if info.get(m)), ""))


def expanded(pattern: str) -> Iterator[str]:
    """A pattern with braces as patterns without.

    >>> list(expanded("{a,b}-{08..10}.tar"))
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    brace = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if brace is None:
        yield pattern
        return
    first, last, words = brace.groups()
    if words is None:
        choices = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    else:
        choices = words.split(",")
    for choice in choices:
        yield from expanded(pattern[: brace.start()] + choice + pattern[brace.end() :])


def paths_of(patterns: str | Sequence[str], where: str) -> list[str]:
    """The files of a glob, a brace pattern, or a list of such, each once; a glob's are sorted.

    Args:
        patterns: local paths, or URLs of fsspec.
        where: the key that says so, for messages.

    Raises:
        ConfigError: when a pattern finds nothing.
    """
    found: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        paths = [path for plain in expanded(pattern) for path in _globbed(plain)]
        if not paths:
            raise ConfigError(
                f"{where} = {pattern} finds no file\n"
                f"    mend it: a path, 'shards/*.tar', or on the command line \"{where}='shards/{{000..127}}.tar'\""
            )
        found |= dict.fromkeys(paths)
    return list(found)


def _globbed(pattern: str) -> list[str]:
    if is_remote(pattern):
        if not _WILD.search(pattern.partition("://")[2].partition("?")[0]):
            return [pattern]
        system, inner = _system(pattern)
        return sorted(system.unstrip_protocol(path) for path in system.glob(inner))
    path = Path(pattern).expanduser().absolute()
    if path.exists() or not _WILD.search(pattern):
        return [str(path)]  # one of {000..127} that is missing is named when it is looked for
    places = [Path(path.anchor)]
    for part in path.parts[1:]:  # a folder that is there is meant, whatever marks are in its name
        places = [found for place in places for found in _matching(place, part)]
    return sorted(map(str, places))


def _matching(place: Path, part: str) -> list[Path]:
    there = place / part
    if there.exists():
        return [there]
    return list(place.glob(part)) if _WILD.search(part) else []


def indexed(place: Place, cache_dir: Path, build: Callable[[Place], Index]) -> Path:
    """The file with the index of a shard, which is built once and kept.

    Several processes may build it at once: the last one's is kept, and all are the same.

    Raises:
        ConfigError: when the shard cannot be indexed, or the cache not be written.
    """
    digest = hashlib.sha256(f"{FORMAT}|{place.path}|{place.size}|{place.stamp}".encode()).hexdigest()[:32]
    file = cache_dir / "shards" / f"{digest}.npz"
    if file.exists() and _is_whole(file):
        return file
    index = build(place)
    try:
        with atomic_write(file) as part, part.open("wb") as arrays:
            np.savez(arrays, **index)  # type: ignore[arg-type]  # its signature has a flag among the arrays
    except OSError as error:
        raise WriteError(
            f"{file.parent}: the index of {place.path} cannot be written: {error.strerror}\n"
            "    set MMTRAIN_CACHE to a folder with room"
        ) from error
    return file


def _is_whole(file: Path) -> bool:
    return zipfile.is_zipfile(file)  # its directory stands at the end
