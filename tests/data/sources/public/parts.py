"""Writing small folders in the layouts of public sets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from mmtrain.data.tables.tables import Tables


def write(path: Path, content: Any) -> None:
    """A text as it is, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (200, 30, 30)).save(path)


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"film")


def rows_of(tables: Tables) -> Mapping[str, list[dict[str, Any]]]:
    return {split: list(table) for split, table in tables.splits.items()}


def files_are_there(tables: Tables, column: str) -> bool:
    return all((tables.folder / row[column]).is_file() for rows in rows_of(tables).values() for row in rows)
