"""Everything that a run has learned from its training split, as files of the run folder: tokenizers, classes, scales.

`.vocabulary.json` lists the files that belong together, with the SHA-256 of each. It is removed before they change and
written after them, so files of two attempts are never used as one vocabulary.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmtrain.data.protocols import FittedKind
from mmtrain.errors import ConfigError
from mmtrain.io.atomic import replacing_files
from mmtrain.io.run_files import LEARN_AGAIN, damaged, read_json, write_json

RECORD = ".vocabulary.json"


def write_vocabulary(folder: Path, learned: Mapping[str, FittedKind], facts: Mapping[str, Any]) -> None:
    """Write a vocabulary into a run folder, instead of an earlier one.

    Args:
        folder: run folder.
        learned: components by name of the input or target.
        facts: additional content of the record: origin, inputs and targets.

    Raises:
        WriteError: if it cannot be written. The earlier one is kept if the error occurs before the files are moved.
    """
    with replacing_files(folder) as part:
        for name, kind in learned.items():
            kind.save(part, name)
        digests = {str(path.relative_to(part)): _digest(path) for path in sorted(part.rglob("*")) if path.is_file()}
        (folder / RECORD).unlink(missing_ok=True)
    write_json(folder / RECORD, {**facts, "files": digests})


def read_vocabulary(folder: Path) -> dict[str, Any] | None:
    """The record of a run folder; None if there is none.

    Raises:
        ConfigError: if it is damaged, or a file differs from the record.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    fix = "restore it, or delete it: the run then learns its vocabulary again from its training split"
    record: dict[str, Any] = read_json(path, fix=fix, keys=("origin", "inputs", "targets"))
    files = record.get("files", {})  # missing in runs of earlier versions
    if not isinstance(files, dict):
        raise damaged(path, "its files are not an object", fix=fix)
    for name, digest in files.items():
        file = folder / name
        if not file.is_file():
            raise ConfigError(f"{file} is missing\n    fix: {LEARN_AGAIN}")
        if _digest(file) != digest:
            raise damaged(file, f"its SHA-256 is not the one in {RECORD}", fix=LEARN_AGAIN)
    return record


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
