"""JSON as rows: one object a line, one array of objects, or an object of columns; and JSON in a cell."""

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtrain.data.tables.json_layouts import Rows, is_list_of_objects, rows_of_layout
from mmtrain.data.tables.table_error import TableError

MAX_NESTING = 100  # lists and objects inside each other, of JSON in a cell; Python's recursion ends at some 1000
_FIRST_PIECE, _PIECE = 1 << 17, 1 << 22  # bytes of lines that are read at once
_MARKS = re.compile(r'[\[{\]}]|"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)  # brackets, and strings to skip
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_HALF = "half of a surrogate pair, which is not valid Unicode"


def parse_json(text: str | bytes) -> Any:
    """What the JSON of a cell, or of a member of a tar, says.

    Raises:
        ValueError: when it is no JSON, is nested deeper than `MAX_NESTING`, or holds half of a surrogate pair, which no
            tokenizer takes and no file can hold.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    content = _parsed(text)
    if not _is_unicode(json.dumps(content, ensure_ascii=False) if _SURROGATE.search(text) else text):
        raise ValueError(f"it holds {_HALF}")
    return content


def _parsed(text: str) -> Any:
    check_nesting(text)
    return json.loads(text)


def check_nesting(text: str) -> None:
    """Refuse JSON that is nested so deep that reading it ends Python's stack, or that of Arrow with the process.

    Raises:
        ValueError: for more than `MAX_NESTING` lists and objects inside each other.
    """
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return
    depth = 0
    for mark in _MARKS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark[0], 0)
        if depth > MAX_NESTING:
            raise ValueError(f"nested more than {MAX_NESTING} deep")


def rows_of_json(path: Path) -> Rows:
    """The rows of a file that is an array of objects, such an array under its only key, or an object of columns.

    Forms that json_layouts.py knows are read, too.

    Raises:
        ValueError: for what is not JSON.
        TableError: for one that is neither, with the command that makes a table of its longest array.
    """
    text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode()
    try:
        content = _parsed(text)
    except json.JSONDecodeError as error:
        what = f"line {error.lineno} is not JSON ({error.msg} at character {error.colno})"
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            raise TableError(f"{what}: it holds several objects", _fix_of_objects(path, text)) from None
        raise ValueError(what) from None
    plain = _as_rows(content)
    layout = Rows(plain, []) if plain is not None else rows_of_layout(content, path)
    if layout is None:
        raise _no_rows(path, content)
    rows, notes = layout
    if _SURROGATE.search(text):
        for number, row in enumerate(rows, start=1):
            _check_surrogates(f"row {number}", row)
    return Rows(rows, notes)


def _fix_of_objects(path: Path, text: str) -> str:
    """What to do with a file of objects that no array holds."""
    line = text.lstrip().partition("\n")[0].strip()
    is_one_a_line = line.endswith("}") and line.count("{") == line.count("}")
    if path.suffix.lower() != ".jsonl" and is_one_a_line:
        return f"mv '{path}' '{path.with_suffix('.jsonl')}'"
    return 'write an object a line into a .jsonl, such as {"image": "a.jpg", "caption": "a dog"}'


def _as_rows(content: Any) -> list[dict[str, Any]] | None:
    if isinstance(content, dict) and len(content) == 1:
        (alone,) = content.values()
        content = alone if alone and isinstance(alone, list) and isinstance(alone[0], dict) else content
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return content
    if isinstance(content, dict) and content and all(isinstance(cells, list) for cells in content.values()):
        if all(map(is_list_of_objects, content.values())):
            return None  # tables, not columns
        try:
            return [dict(zip(content, cells, strict=True)) for cells in zip(*content.values(), strict=True)]
        except ValueError:
            return None  # of different length
    return None


def _no_rows(path: Path, content: Any) -> TableError:
    if not isinstance(content, dict):
        description = f"a list of {type(content[0]).__name__}" if isinstance(content, list) else type(content).__name__
        return TableError(f"it holds no objects, but {description}", _AN_OBJECT_A_ROW)
    arrays = {key: part for key, part in content.items() if isinstance(part, list) and part and _as_rows(part)}
    what = f"it is one object with the keys {', '.join(list(content)[:8])}, and no list of rows"
    if not arrays:
        is_of_pandas = all(isinstance(part, dict) for part in content.values()) or {"columns", "data"} <= content.keys()
        pandas = '; pandas writes it by DataFrame.to_json(path, orient="records")'
        return TableError(what, _AN_OBJECT_A_ROW + (pandas if is_of_pandas else ""))
    key = max(arrays, key=lambda name: len(arrays[name]))
    program = f"import json; [print(json.dumps(row)) for row in json.load(open('{path}'))['{key}']]"
    return TableError(what, f'python -c "{program}" > {path.with_suffix(".jsonl")} && mv {path} {path}.original')


_OF_ROWS = re.compile(r"\s*\[\s*(?=\{)")  # an array of objects
_AN_OBJECT_A_ROW = 'write an object a row: [{"image": "a.jpg", "caption": "a dog"}, ...]'


def names_in(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every key of some row."""
    return list(dict.fromkeys(name for row in rows for name in row))


def first_objects(path: Path, most: int) -> list[dict[str, Any]]:
    """The objects that an array begins with, of a file that is too large to be read for them."""
    with path.open("rb") as file:
        text = file.read(1_000_000).removeprefix(codecs.BOM_UTF8).decode(errors="ignore")
    rows: list[dict[str, Any]] = []
    rest = text[start.end() :] if (start := _OF_ROWS.match(text)) else ""
    while len(rows) < most and rest.startswith("{"):
        try:
            row, end = json.JSONDecoder().raw_decode(rest)
        except (json.JSONDecodeError, RecursionError):
            break  # where the piece ends
        rows.append(row)
        rest = rest[end:].lstrip(", \r\n\t")
    return rows


def pieces_of_lines(path: Path) -> Iterator[tuple[list[bytes], int]]:
    """Some lines of a file at a time, first a few, with the number of the first. Only a line feed ends a line."""
    number = 1
    with path.open("rb") as file:
        while lines := file.readlines(_FIRST_PIECE if number == 1 else _PIECE):
            if number == 1:
                lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
            yield lines, number
            number += len(lines)


def rows_of_lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """The rows of a file with an object a line, each with its size in bytes.

    Raises:
        ValueError: for a line that is not JSON, is not UTF-8, or that `parse_json` refuses; with its number.
        TableError: for a line that is no object.
    """
    for lines, first in pieces_of_lines(path):
        yield from rows_of_piece(path, lines, first)


def rows_of_piece(path: Path, lines: Sequence[bytes], first: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The rows of some lines of a file, as `rows_of_lines` gives them.

    Args:
        path: of the file, for messages.
        lines: of it.
        first: number of the first of them.
    """
    for number, line in enumerate(lines, start=first):
        text = line.decode()
        if not text.strip():
            continue
        try:
            row = _parsed(text)
        except ValueError as error:
            if text.lstrip().startswith("{") and number == 1 and isinstance(error, json.JSONDecodeError):
                raise TableError(not_json(number, error), _fix_of_objects(path, text)) from None
            raise ValueError(not_json(number, error)) from None
        if not isinstance(row, dict):
            fix = 'write an object a line, such as {"image": "a.jpg", "caption": "a dog"}'
            fix = f"mv {path} {path.with_suffix('.json')}" if isinstance(row, list) and number == 1 else fix
            raise TableError(f"line {number} holds no object, but {type(row).__name__}", fix)
        if "\\u" in text and _SURROGATE.search(text):
            _check_surrogates(f"line {number}", row)
        yield row, len(line)


def _check_surrogates(where: str, row: Mapping[str, Any]) -> None:
    """Refuse a row that holds half of a surrogate pair, and name its column."""
    for name, cell in row.items():
        if not _is_unicode(json.dumps([name, cell], ensure_ascii=False)):
            column = name if _is_unicode(name) else ascii(name)
            raise ValueError(f"{where}: the column {column} holds {_HALF}")


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can write a text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def not_json(number: int, error: ValueError) -> str:
    """What is wrong with a line, in words."""
    if isinstance(error, json.JSONDecodeError):
        return f"line {number} is not JSON ({error.msg} at character {error.pos + 1})"
    return f"line {number} is no row: {error}"
