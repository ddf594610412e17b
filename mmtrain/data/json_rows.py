"""JSON as rows: one object a line, one array of objects, or an object of columns."""

import json
from pathlib import Path
from typing import Any


def rows_of_json(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that is an array of objects, or an object of columns of one length.

    Raises:
        ValueError: for one that is neither, with the command that makes a table of its longest array.
    """
    with path.open(encoding="utf-8-sig") as file:
        try:
            content = json.load(file)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {error.lineno} is not JSON ({error.msg} at character {error.colno})") from None
    rows = _as_rows(content)
    if rows is None:
        raise ValueError(_no_rows(path, content))
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


def _no_rows(path: Path, content: Any) -> str:
    if not isinstance(content, dict):
        held = f"a list of {type(content[0]).__name__}" if isinstance(content, list) else type(content).__name__
        return f'it holds no objects, but {held}\nwrite an object a row: [{{"image": "a.jpg", "caption": "..."}}, ...]'
    arrays = {key: part for key, part in content.items() if isinstance(part, list) and part and _as_rows(part)}
    what = f"it is one object with the keys {', '.join(list(content)[:8])}, and no list of rows"
    if not arrays:
        return f'{what}\nwrite an object a row: [{{"image": "a.jpg", "caption": "..."}}, ...]'
    key = max(arrays, key=lambda name: len(arrays[name]))
    program = f"import json; [print(json.dumps(row)) for row in json.load(open('{path}'))['{key}']]"
    return f'{what}\npython -c "{program}" > {path.with_suffix(".jsonl")} && mv {path} {path}.whole'


def broken_line(path: Path) -> str | None:
    """The first line of a jsonl file that is not JSON, in words."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                json.loads(line.strip() or "null")
            except json.JSONDecodeError as error:
                return f"line {number} is not JSON ({error.msg} at character {error.pos + 1})"
    return None
