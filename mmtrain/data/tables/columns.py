"""The column of each input and target: by its usual name, or as configured."""

import base64
import difflib
import re
import shlex
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmtrain.errors import ConfigError

# Usual names of columns, by their content. The first that a table has is used.
USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": (
        "image",
        "img",
        "picture",
        "photo",
        "image_path",
        "image_file",
        "jpg",
        "png",
        "webp",
        "file_name",
        "filename",
    ),
    "text": (
        "caption",
        "captions",
        "text",
        "sentence",
        "sentences",
        "title",
        "description",
        "txt",
        "transcript",
        "question",
    ),
    "audio": ("audio", "speech", "sound", "wav", "audio_path", "audio_file", "mp3", "flac", "m4a"),
    "video": ("video", "clip", "film", "video_path", "video_file", "mp4"),
    "vector": ("vector", "features", "tabular"),
    "sequence": ("sequence", "feature_path", "features_path", "npy"),
    "dialogue": ("dialogue", "turns", "utterances"),
    "label": ("label", "class", "category", "target", "cls"),
    "labels": ("labels", "classes", "categories", "tags"),
    "number": ("number", "score", "rating", "value", "price"),
    "answer": ("answer", "answers"),
    "caption": ("caption", "captions", "text", "sentence", "sentences", "title", "description", "txt", "transcript"),
    "chat": ("chat", "messages", "conversations", "conversation", "dialogue", "dialog", "turns"),
}
Column = str | list[str]


def find_columns(
    names: Sequence[str],
    wanted: Mapping[str, Column | None],
    *,
    where: str,
    likely: Callable[[], Mapping[str, Column]] = dict,
) -> dict[str, Column]:
    """The column of each input and target.

    Args:
        names: the columns of the table.
        wanted: by name of an input or target: its column (several, to make one vector of), or None to look for the
            usual names.
        where: the table, for messages.
        likely: guessed columns, by input or target; called only for messages.

    Returns:
        The column of each that the table has.

    Raises:
        ConfigError: for the named columns that are not there.
    """
    faults = faults_of_columns(names, wanted, where=where, likely=likely)
    if faults:
        raise ConfigError("\n".join(faults.values()))
    columns: dict[str, Column] = {}
    for name, column in wanted.items():
        if column is None:
            usual = next((c for c in USUAL_NAMES.get(name, (name,)) if c in names), None)
            if usual is not None:
                columns[name] = usual
            continue
        columns[name] = column
    return columns


def absent_columns(names: Sequence[str], wanted: Mapping[str, Column | None]) -> dict[str, list[str]]:
    """By input or target, those of its named columns that a table does not have.

    An input or target whose missing column is similar to one of the table's is left out: it is probably misspelt.

    >>> absent_columns(["id", "age"], {"vector": ["age", "height"], "image": "photo", "label": "ages", "text": None})
    {'vector': ['height'], 'image': ['photo']}
    """
    folded = [name.strip().casefold() for name in names]
    parts = {name: [column] if isinstance(column, str) else column or [] for name, column in wanted.items()}
    absent = {name: [part for part in of if part not in names] for name, of in parts.items()}
    return {
        name: of
        for name, of in absent.items()
        if of and not any(difflib.get_close_matches(part.strip().casefold(), folded, n=1) for part in of)
    }


def faults_of_columns(
    names: Sequence[str],
    wanted: Mapping[str, Column | None],
    *,
    where: str,
    likely: Callable[[], Mapping[str, Column]],
) -> dict[str, str]:
    """By input or target, that its named column is not there, and what to type; `find_columns` has the arguments."""
    missing = {
        name: part
        for name, column in wanted.items()
        for part in ([column] if isinstance(column, str) else column or [])
        if part not in names
    }
    guessed = likely() if missing else {}
    faults = {}
    for name, column in missing.items():
        folded = {other.strip().casefold(): other for other in reversed(names)}
        near = difflib.get_close_matches(column.casefold(), folded, n=1)
        is_one = isinstance(wanted[name], str)
        same = folded.get(column.strip().casefold()) if is_one else None
        one = same or guessed.get(name) or (folded[near[0]] if near and is_one else None)
        every_column = {n: one if n == name else guessed.get(n) for n in wanted}
        line = typed({n: part for n, part in every_column.items() if part and (n == name or part != one)})
        fix = f"set {line}" if one else f"set data.columns.{name} to one of them"
        faults[name] = f"data.columns.{name} = {column}, but {where} has the columns {_a_few(names)}\n    {fix}"
    return faults


def typed(columns: Mapping[str, Column]) -> str:
    """Columns as they are named on the command line.

    >>> typed({"image": "photo", "vector": ["age", "body height"]})
    "data.columns.image=photo 'data.columns.vector=[age,body height]'"
    """
    messages = [f"data.columns.{name}={_value(column)}" for name, column in columns.items()]
    return " ".join(map(shlex.quote, messages))


def _value(column: Column) -> str:
    if isinstance(column, str):
        return _as_hydra_reads(column)
    return f"[{','.join(map(_as_hydra_reads, column))}]"


def _as_hydra_reads(column: str) -> str:
    """The name of a column as a value of Hydra, which takes spaces at the ends away and gives some marks a meaning."""
    plain = re.fullmatch(r"[\w/.+*@?|%-]+(?: [\w/.+*@?|%-]+)*", column, re.ASCII)
    if plain and not re.fullmatch(r"null|true|false|nan|[-+]?inf|[-+]?[\d._]+(?:e[-+]?\d+)?", column.lower()):
        return column
    escaped = column.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _a_few(names: Sequence[str]) -> str:
    """Names in a message, which can be many and long.

    >>> _a_few(["a", "b" * 99])
    'a, bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb...'
    """
    shown = ", ".join(name if len(name) <= 60 else f"{name[:57]}..." for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


_SHOWN = 40  # names
_MADE_WITH_NAMES = (".tar", ".jsonl", ".json", ".parquet", ".arrow")  # files whose columns always have names


def no_input(inputs: Sequence[str], names: Sequence[str], *, where: str, likely: Mapping[str, Column]) -> ConfigError:
    """The message for a table without a usual name of an input column."""
    mark = next((m for m in (";", "\t", "|") if len(names) == 1 and m in names[0]), None)
    if mark is not None:
        return ConfigError(
            f"{where} has one column, {names[0]!r}: its cells are separated by {mark!r}\n"
            "    save it with commas as .csv, or with tabs as .tsv"
        )
    if where.endswith(".tar") and any("." in name for name in names):
        return ConfigError(
            f"{where}: no member is known as an input; the members of a sample end in {_a_few(names)}\n"
            "    fix: the name of a sample ends at the first dot, so write its members as a_00.png in place of a.00.png"
        )
    if not where.endswith(_MADE_WITH_NAMES) and any(re.search(r"[\\/]|\.\w{3,4}$", name) for name in names):
        return ConfigError(
            f"{where}: the first line names no columns, but holds {_a_few(names)}\n"
            "    write a line of names above it, such as image,caption,label"
        )
    such = typed(likely or {next(iter(inputs), "image"): names[0]})
    return ConfigError(
        f"{where}: no column is known as an input; the table has {_a_few(names)}\n"
        f"    {'set' if likely else 'say which holds what, such as'} {such}"
    )


def cell_of(cells: Mapping[str, Any], column: Column | None) -> Any:
    """The cell of a row in a column, or a list for several; None if the table does not have the column."""
    if column is None:
        return None
    return cells.get(column) if isinstance(column, str) else [cells.get(part) for part in column]


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, blank text, or a list or a dict of such.

    >>> [is_empty(v) for v in (None, "", " ", [], [None, ""], {"bytes": None, "path": None}, 0, "a", [0.0])]
    [True, True, True, True, True, True, False, False, False]
    """
    if value is None:
        return True
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float):
        return value != value
    if isinstance(value, list | tuple):
        return all(is_empty(part) for part in value)
    if isinstance(value, Mapping):
        return all(is_empty(part) for part in value.values())
    return False


_MOST_OF_PATHS = 32  # characters that are not checked
_DATA_URI = re.compile(r"\s*data:[\w.+/;=-]*;base64,", re.IGNORECASE)
# PNG, JPEG, GIF, RIFF (WEBP, WAV), TIFF, FLAC, OGG and MP3 begin so
_BASE64 = re.compile(r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|SUkq|TU0A|ZkxhQ|T2dnUw|SUQz)[A-Za-z0-9+/\r\n]{240,}={0,2}\s*")


def content_of(value: Any) -> Any:
    """What a cell holds: the bytes of a file, a path, or what else it is.

    Of the {"bytes", "path"} that `datasets` gives for a file these are the bytes, or else the path. A text in base64 is
    a file when it is a data: URI, or begins as pictures and sounds do and is too long for a path.
    """
    if isinstance(value, str) and len(value) > _MOST_OF_PATHS:
        head = _DATA_URI.match(value)
        if head is not None or _BASE64.fullmatch(value):
            try:
                return base64.b64decode("".join(value[head.end() if head else 0 :].split()), validate=True)
            except ValueError:
                return value
    if isinstance(value, Mapping) and {"bytes", "path"} <= value.keys():
        return value["path"] if value["bytes"] is None else value["bytes"]
    return value


def name_of(value: Any) -> str | None:
    """The class that a cell names; 3.0 is 3, because a column of numbers with gaps often comes as floats.

    Spaces around a name do not count, and neither does whether an accent is composed (Unicode NFC).

    >>> [name_of(value) for value in (3.0, " red ", " ", float("nan"))]
    ['3', 'red', None, None]

    Raises:
        UnicodeEncodeError: for half of a surrogate pair, which no file of class names can hold.
    """
    if value is None or value != value:  # NaN is a gap as well
        return None
    name = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    name.encode()
    return unicodedata.normalize("NFC", name.strip()) or None


_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?")


def without_point(name: str) -> str:
    """The name of a class of integers, as pandas writes them where there are gaps.

    >>> without_point("3.0"), without_point("3.5"), without_point("003")
    ('3', '3.5', '003')
    """
    return re.sub(r"(?<=\d)\.0+\Z", "", name) if is_number(name) else name


def is_number(name: str) -> bool:
    """Whether a name is written as a number.

    >>> is_number("3.0"), is_number("v3.0")
    (True, False)
    """
    return _NUMBER.fullmatch(name) is not None
