"""JSON as rows: one object a line, one array of objects, or an object of columns; and JSON in a cell."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_NESTING = 100  # lists and objects inside each other, of JSON in a cell; Python's recursion ends at some 1000
_MARKS = re.compile(r'[\[{\]}]|"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)  # brackets, and strings to pass over
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class NoRowsError(ValueError):
    """JSON that is no table.

    Args:
        what: it is instead.
        mend: to be typed or written.
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.mend = mend


def parse_json(text: str | bytes) -> Any:
    """What the JSON of a cell, or of a member of a tar, says.

    Raises:
        ValueError: when it is no JSON, is nested deeper than `MAX_NESTING`, or holds half of a surrogate pair, which no
            tokenizer takes and no file can hold.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    check_nesting(text)
    content = json.loads(text)
    try:
        (json.dumps(content, ensure_ascii=False) if _SURROGATE.search(text) else text).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is not valid Unicode") from None
    return content


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


def rows_of_json(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that is an array of objects, or an object of columns of one length.

    Raises:
        ValueError: for what is not JSON.
        NoRowsError: for one that is neither, with the command that makes a table of its longest array.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} is not JSON ({error.msg} at character {error.colno})") from None
    rows = _as_rows(content)
    if rows is None:
        raise _no_rows(path, content)
    return rows


def _as_rows(content: Any) -> list[dict[str, Any]] | None:
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return content
    if isinstance(content, dict) and content and all(isinstance(cells, list) for cells in content.values()):
        try:
            return [dict(zip(content, cells, strict=True)) for cells in zip(*content.values(), strict=True)]
        except ValueError:
            return None  # of different length
    return None


def _no_rows(path: Path, content: Any) -> NoRowsError:
    if not isinstance(content, dict):
        held = f"a list of {type(content[0]).__name__}" if isinstance(content, list) else type(content).__name__
        return NoRowsError(f"it holds no objects, but {held}", _AN_OBJECT_A_ROW)
    arrays = {key: part for key, part in content.items() if isinstance(part, list) and part and _as_rows(part)}
    what = f"it is one object with the keys {', '.join(list(content)[:8])}, and no list of rows"
    if not arrays:
        return NoRowsError(what, _AN_OBJECT_A_ROW)
    key = max(arrays, key=lambda name: len(arrays[name]))
    program = f"import json; [print(json.dumps(row)) for row in json.load(open('{path}'))['{key}']]"
    return NoRowsError(what, f'python -c "{program}" > {path.with_suffix(".jsonl")} && mv {path} {path}.whole')


_AN_OBJECT_A_ROW = 'write an object a row: [{"image": "a.jpg", "caption": "a dog"}, ...]'


def names_in(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every key of some row."""
    return list(dict.fromkeys(name for row in rows for name in row))


def first_objects(path: Path, most: int) -> list[dict[str, Any]]:
    """The objects that an array begins with, of a file that is too large to be read for them."""
    with path.open(encoding="utf-8-sig") as file:
        rest = file.read(1_000_000).strip()
    rows: list[dict[str, Any]] = []
    rest = rest.removeprefix("[").lstrip()
    while len(rows) < most and rest.startswith("{"):
        try:
            row, end = json.JSONDecoder().raw_decode(rest)
        except (json.JSONDecodeError, RecursionError):
            break  # where the piece ends
        rows.append(row)
        rest = rest[end:].lstrip(", \r\n\t")
    return rows


def broken_line(path: Path) -> str | None:
    """The first line of a jsonl file that is not JSON or not valid Unicode, in words."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                parse_json(line.strip() or "null")
            except ValueError as error:
                return not_json(number, error)
    return None


def not_json(number: int, error: ValueError) -> str:
    """What is wrong with a line, in words."""
    if isinstance(error, json.JSONDecodeError):
        return f"line {number} is not JSON ({error.msg} at character {error.pos + 1})"
    return f"line {number} is no row: {error}"
