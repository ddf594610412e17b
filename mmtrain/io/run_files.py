"""The files of a run folder: written atomically, and checked when they are read.

A file is replaced atomically (`mmtrain.io.atomic`). Logs grow line by line and are repaired when a run is resumed.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmtrain.errors import ConfigError
from mmtrain.io.atomic import replacing
from mmtrain.io.escape import escape_csv, print_escaped
from mmtrain.io.os_errors import FIXES, environment_errno, explaining

if TYPE_CHECKING:
    from PIL import Image

CONFIG = "config.yaml"
# The fix for a damaged file that a component wrote
LEARN_AGAIN = "restore it, or delete .vocabulary.json in its run folder to learn its content again"
_SECTIONS = ("task", "data", "encoder", "trainer")  # the last one is also the last one in the file
_CONFIG_FIX = "restore it, or resume the run (the command that trained it, with resume=auto), which writes it again"


def write_text(path: Path, text: str) -> None:
    """Write a text.

    Raises:
        WriteError: if it cannot be written; the same for all functions below.
    """
    with replacing(path) as part:
        part.write_bytes(encoded(text))


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Write a value as JSON."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one object per line."""
    with replacing(path) as part, part.open("wb") as file:
        for row in rows:
            file.write(encoded(json.dumps(row, ensure_ascii=False) + "\n"))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table."""
    write_text(path, csv_text([columns, *rows]))


def write_config(path: Path, cfg: DictConfig | ListConfig) -> None:
    """Write a configuration as YAML."""
    write_text(path, OmegaConf.to_yaml(cfg))


def write_picture(path: Path, picture: "Image.Image") -> None:
    """Write an image of PIL in the format of the path's ending.

    Raises:
        ConfigError: for an ending without a format.
    """
    from PIL import Image

    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ConfigError(
            f"{path}: images cannot be written as '{path.suffix}'\n    fix: name it {path.with_suffix('.png')}"
        )
    with replacing(path) as part:
        picture.save(part, format=kind)


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as lines of a CSV file. A cell that a spreadsheet would interpret as a formula gets an apostrophe."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(map(escape_csv, row) for row in rows)
    return text.getvalue()


def append_line(path: Path, line: str) -> None:
    """Add a line to a log. If that fails, the log is unchanged."""
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        end = path.stat().st_size
    write_end(path, end, line + "\n")


def write_end(path: Path, start: int, text: str) -> None:
    """Replace everything after `start` bytes of a log by `text`. If that fails, the old end is restored."""
    new = encoded(text)
    with explaining(path), path.open("r+b", buffering=0) as file:
        file.seek(start)
        old = file.read()
        try:
            _overwrite(file, start, new)
        except BaseException:  # including a signal that ends training here
            with suppress(OSError):
                _overwrite(file, start, old)
            raise


def _overwrite(file: io.FileIO, start: int, content: bytes) -> None:
    """Overwrite without truncating first: a kill in between would lose the row."""
    file.seek(start)
    done = 0
    while done < len(content):
        done += file.write(content[done:])
    file.truncate(start + len(content))


def encoded(text: str) -> bytes:
    """Encode text. Half an emoji, which UTF-8 does not have, becomes an escape that JSON decodes to the same."""
    return text.encode("utf-8", "backslashreplace")


# ---------------------------------------------------------------------------- reading


def note(text: str) -> None:
    """Print a warning for the user."""
    print_escaped(text, stderr=True)


def read_text(path: Path, *, fix: str) -> str:
    """Return the text of a file.

    Args:
        path: path of the file.
        fix: what a user can do if it is missing or damaged.

    Raises:
        ConfigError: if it is missing or damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing\n    fix: {fix}") from error
    except OSError as error:
        number = environment_errno(error)
        advice = fix if number is None else FIXES[number]
        raise ConfigError(f"{path}: cannot be read: {error.strerror}\n    fix: {advice}") from error
    if not content.strip():
        raise damaged(path, "it is empty", fix=fix)
    if b"\0" in content:
        where = content.index(b"\0")
        raise damaged(path, f"NUL bytes from byte {where} on, as after a power failure", fix=fix)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, f"byte {error.start} is not UTF-8", fix=fix) from error


def damaged(path: Path, reason: str, *, fix: str) -> ConfigError:
    """The message for a file that differs from what was written."""
    return ConfigError(f"{path} is damaged: {reason}\n    fix: {fix}")


def read_json(path: Path, *, fix: str, keys: Iterable[str] = ()) -> Any:
    """Return the value of a JSON file.

    Args:
        path: path of the file.
        fix: see `read_text`.
        keys: required keys; if there are any, the value must be an object.

    Raises:
        ConfigError: if the file is missing or damaged.
    """
    text = read_text(path, fix=fix)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not complete JSON ({error})", fix=fix) from error
    wanted = list(keys)
    missing = wanted if not isinstance(value, dict) else [key for key in wanted if key not in value]
    if missing:
        raise damaged(path, f"{', '.join(missing)} is missing", fix=fix)
    return value


def optional_json(path: Path) -> dict[str, Any] | None:
    """Return the object of an optional JSON file; None if it is missing, or damaged, which is noted."""
    if not path.exists():
        return None
    try:
        value = read_json(path, fix="")
    except ConfigError as error:
        note(f"{str(error).splitlines()[0]}; continuing without it")
        return None
    if not isinstance(value, dict):
        note(f"{path} is damaged: it is not an object; continuing without it")
        return None
    return value


def read_json_lines(path: Path, *, keys: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return the objects of a JSON lines file. Lines that cannot be read are skipped, and a note has their number.

    Args:
        path: path of the file; a missing file has no objects.
        keys: required keys of each object.
    """
    wanted = set(keys)

    def parsed(line: bytes) -> dict[str, Any] | None:
        row = json.loads(line.decode("utf-8"))
        return row if isinstance(row, dict) and wanted <= row.keys() else None

    try:
        lines = _lines(path)
    except ConfigError as error:
        note(f"{str(error).splitlines()[0]}; continuing without it")
        return []
    return _readable(path, lines, parsed)


class CSVTable(NamedTuple):
    """A CSV file: the names of its columns, which are empty without a header, and its rows."""

    columns: list[str]
    rows: list[dict[str, str]]


def read_csv(path: Path, *, whole_numbers: Sequence[str] = ()) -> CSVTable:
    """Return a CSV file. Lines that cannot be read are skipped, and a note has their number.

    Args:
        path: path of the file; it has no columns if it is missing or its header is damaged.
        whole_numbers: required columns of integers.
    """
    header, *lines = _lines(path) or [b""]
    columns = _cells(header) or []
    if not columns or not set(whole_numbers) <= set(columns):
        return CSVTable([], [])

    def parsed(line: bytes) -> dict[str, str] | None:
        cells = _cells(line)
        if cells is None or len(cells) != len(columns):
            return None
        row = dict(zip(columns, cells, strict=True))
        for name in whole_numbers:
            int(row[name])
        return row

    return CSVTable(columns, _readable(path, lines, parsed))


def _cells(line: bytes) -> list[str] | None:
    """The cells of a complete line. The last cell of an incomplete line could be a wrong number."""
    if not line.endswith(b"\n") or b"\0" in line:
        return None
    with suppress(csv.Error, UnicodeDecodeError):
        return next(csv.reader([line.decode("utf-8")]), None)
    return None


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        number = environment_errno(error)
        fix = "move the file away" if number is None else FIXES[number]
        raise ConfigError(f"{path}: cannot be read: {error.strerror}\n    fix: {fix}") from error


def _readable(
    path: Path, lines: Iterable[bytes], parsed: Callable[[bytes], dict[str, Any] | None]
) -> list[dict[str, Any]]:
    rows = []
    filled = [line for line in lines if line.strip()]
    for line in filled:
        with suppress(ValueError, RecursionError):
            if (row := parsed(line)) is not None:
                rows.append(row)
    if bad := len(filled) - len(rows):
        note(f"{path}: {bad} of {len(filled)} lines cannot be read and {'is' if bad == 1 else 'are'} skipped")
    return rows


def read_config(folder: Path) -> DictConfig:
    """Return config.yaml of a run folder.

    Raises:
        ConfigError: if it is missing or damaged.
    """
    path = folder / CONFIG
    text = read_text(path, fix=_CONFIG_FIX)
    try:
        cfg = OmegaConf.create(text)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise damaged(path, f"it is not YAML ({str(error).splitlines()[0]})", fix=_CONFIG_FIX) from error
    missing = [key for key in _SECTIONS if not isinstance(cfg, DictConfig) or key not in cfg]
    if missing:
        raise damaged(path, f"it has no {', '.join(missing)}", fix=_CONFIG_FIX)
    assert isinstance(cfg, DictConfig)
    return cfg
