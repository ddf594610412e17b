"""Checkpoints that are complete or do not exist: written to a temporary file, verified, synced, renamed.

Every writer has its own temporary file, named after its process, so two processes cannot mix their bytes.

The manifest has the size and the SHA-256 of every record. It is the last record of the archive itself, so one rename
puts the checkpoint and its manifest in place, and a kill cannot separate them. `torch.load` ignores a record that it
does not know.
"""

import errno
import hashlib
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.plugins import TorchCheckpointIO
from torch import Tensor

from mmtrain.errors import WriteError
from mmtrain.io.atomic import atomic_write
from mmtrain.io.escape import print_escaped
from mmtrain.io.os_errors import FIXES, environment_errno

MANIFEST = "archive/manifest.json"  # torch reads no archive with a record outside its one folder
NO_MANIFEST = "it has no manifest, so it cannot be verified"
_ALWAYS = ("archive/data.pkl", "archive/version")  # records that torch writes into every archive
_BLOCK = 2**20
# Errors of zipfile and json for an archive with flipped bits: a position outside, an unknown method, a password.
_DAMAGE = (
    *(zipfile.BadZipFile, struct.error, zlib.error, EOFError, OSError),
    *(ValueError, LookupError, TypeError, RuntimeError, MemoryError),
)
_MAKE_ROOM = "free space and resume with resume=auto, or set run_dir to a larger disk"
_REST = 2**20  # approximate bytes of a checkpoint in addition to its tensors


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint to `path`. The old file is kept until the new one is complete, also after a kill.

    Raises:
        WriteError: if the disk is full, or the file cannot be written.
    """
    try:
        with atomic_write(path) as part:
            _check_room(checkpoint, path)
            with part.open("wb") as file:
                torch.save(dict(checkpoint), file)
            with zipfile.ZipFile(part, "a") as archive:
                records = _records(archive)
                archive.writestr(MANIFEST, json.dumps({"records": records}))
            _check_written(part, records, num_bytes(checkpoint))
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:  # torch raises RuntimeError if a write fails
        number, reason = environment_errno(error), str(error).splitlines()[0][:160]
        fix = _MAKE_ROOM if number in (None, errno.ENOSPC) else FIXES[number]
        raise WriteError(_not_written(checkpoint, path, f"it cannot be written: {reason}", fix)) from error


def corruption_reason(path: Path) -> str | None:
    """Why an archive is damaged, or None. Every byte of its records is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            if MANIFEST not in archive.namelist():
                return NO_MANIFEST
            wanted = _manifest(archive)
            for name in archive.namelist():
                if name != MANIFEST and name not in wanted:
                    return f"the record {name} is not in the manifest"
            for name in _ALWAYS:
                if name not in wanted:
                    return f"the manifest does not list {name}"
            result = _records(archive)
    except _DAMAGE as error:
        return f"it cannot be read completely: {error}"
    for name, entry in wanted.items():
        if name not in result:
            return f"the record {name} is missing"
        if result[name] != entry:
            return f"the SHA-256 of the record {name} differs"
    return None


def _check_written(part: Path, records: Mapping[str, Mapping[str, Any]], num_bytes: int) -> None:
    """Compare the content of a temporary file with the checkpoint, before it replaces anything.

    The content of the records was verified when `records` was created.

    Args:
        part: the file, opened again by its name.
        records: as `_records` found them, and as the manifest must have them.
        num_bytes: number of bytes of the tensors.

    Raises:
        OSError: if they differ.
    """
    with zipfile.ZipFile(part) as archive:
        results = {info.filename: info.file_size for info in archive.infolist()}
        manifest = json.loads(archive.read(MANIFEST))["records"] if MANIFEST in results else None
    results.pop(MANIFEST, None)
    stored = sum(size for name, size in results.items() if name.startswith("archive/data/"))
    complete = all(name in results for name in _ALWAYS) and stored >= num_bytes
    if not complete or manifest != records or results != {name: entry["bytes"] for name, entry in records.items()}:
        raise OSError(
            f"the file has {len(results)} records with {stored} bytes of tensors,"
            f" but {len(records)} records with {num_bytes} bytes were written"
        )


def _manifest(archive: zipfile.ZipFile) -> dict[str, dict[str, Any]]:
    """Content of the manifest for each record.

    Raises:
        ValueError: if it is larger than its records allow. Then it is not read, because a few bytes of an archive can
            expand to terabytes.
    """
    size, most = archive.getinfo(MANIFEST).file_size, _BASE + _PER_RECORD * len(archive.namelist())
    if size > most:
        raise ValueError(f"the manifest has {size} bytes, but at most {most} are possible for its records")
    with archive.open(MANIFEST) as file:
        records = json.loads(file.read(most))["records"]
    if not isinstance(records, dict):
        raise ValueError("the manifest has no records")
    return records


_BASE, _PER_RECORD = 2**16, 2**10  # bytes; a name, a number and a SHA-256


def _records(archive: zipfile.ZipFile) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every record except the manifest. Reading a record checks its CRC."""
    results = {}
    for info in archive.infolist():
        if info.filename == MANIFEST:
            continue
        digest = hashlib.sha256()
        with archive.open(info) as record:
            while block := record.read(_BLOCK):
                digest.update(block)
        results[info.filename] = {"bytes": info.file_size, "sha256": digest.hexdigest()}
    return results


def _check_room(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Check the free space in advance. The old file is replaced only by a complete one, so both must fit."""
    wanted, free = num_bytes(checkpoint) + _REST, shutil.disk_usage(path.parent).free
    if wanted > free:
        reason = f"it needs {_mib(wanted)}, but {_mib(free)} are free"
        raise WriteError(_not_written(checkpoint, path, reason, _MAKE_ROOM))


def _not_written(checkpoint: Mapping[str, Any], path: Path, reason: str, fix: str) -> str:
    step = checkpoint.get("global_step")
    existing = "the existing checkpoint is complete; " if path.exists() else ""
    return f"{path}: the checkpoint of step {step} is not written: {reason}\n    fix: {existing}{fix}"


def num_bytes(checkpoint: object) -> int:
    """Bytes of the tensors in nested dicts and lists. Shared memory counts once, as torch writes it once.

    >>> a = torch.zeros(10)
    >>> num_bytes({"a": a, "again": [a.view(2, 5)], "b": 1})
    40
    """
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    apply_to_collection(checkpoint, Tensor, note)
    return sum(storages.values())


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _has_nan(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isnan().any())


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's plugin for reading and writing checkpoints.

    Args:
        background: whether a thread writes the checkpoint, and training waits only for a copy, which needs memory.
    """

    def __init__(self, *, background: bool) -> None:
        super().__init__()
        self.background = background
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, or start to write it. Weights with NaN are useless and replace nothing.

        Raises:
            WriteError: if it, or in the background the one before, cannot be written.
        """
        self.wait()
        if bad := [name for name, tensor in checkpoint.get("state_dict", {}).items() if _has_nan(tensor)]:
            existing = "the existing checkpoint is kept" if Path(path).exists() else "it is not written"
            print_escaped(f"{path}: {bad[0]} has NaN at step {checkpoint['global_step']}; {existing}", stderr=True)
            return
        if not self.background:
            write_checkpoint(checkpoint, Path(path))
            return
        copied = apply_to_collection(checkpoint, Tensor, lambda t: t.detach().to("cpu", copy=True))
        self._writing = self._writer.submit(write_checkpoint, cast(dict[str, Any], copied), Path(path))

    def wait(self) -> None:
        """Wait until the checkpoint is written.

        Raises:
            WriteError: if it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        """Read a checkpoint, after waiting for a pending one."""
        self.wait()
        return super().load_checkpoint(path, *args, **options)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint, after waiting for a pending one."""
        self.wait()
        super().remove_checkpoint(path)

    def teardown(self) -> None:
        """Wait for the last checkpoint at the end of training."""
        self.wait()
