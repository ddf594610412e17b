"""Checkpoints that are whole or not there at all: written beside, checked, synced, renamed.

Every write has a part file of its own, named after its process, so that two processes cannot mix their bytes.

The manifest, which has the size and the SHA-256 of every record, is the last record of the archive itself: the one
rename that puts a checkpoint in place puts its manifest there too, and a kill can separate nothing. `torch.load` passes
over a record that it does not know.
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
NO_MANIFEST = "it has no manifest, so that nothing says whether it is whole"
_ALWAYS = ("archive/data.pkl", "archive/version")  # records that torch writes into every archive
_BLOCK = 2**20
# What zipfile and json may say of an archive with flipped bits: a place outside of it, an unknown method, a password.
_DAMAGE = (
    *(zipfile.BadZipFile, struct.error, zlib.error, EOFError, OSError),
    *(ValueError, LookupError, TypeError, RuntimeError, MemoryError),
)
_MAKE_ROOM = "make room, then go on with resume=auto, or set run_dir to a larger disk"
_REST = 2**20  # bytes of a checkpoint beside its tensors, about


def write_whole(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Put a checkpoint at `path`; what stood there stays until the new one is whole, also when this is killed.

    Raises:
        WriteError: when there is no room, or it cannot be written.
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
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:  # torch says RuntimeError when a write fails
        number, reason = environment_errno(error), str(error).splitlines()[0][:160]
        fix = _MAKE_ROOM if number in (None, errno.ENOSPC) else FIXES[number]
        raise WriteError(_not_written(checkpoint, path, f"it cannot be written: {reason}", fix)) from error


def broken(path: Path) -> str | None:
    """Why an archive is not whole, or None; every byte of its records is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            if MANIFEST not in archive.namelist():
                return NO_MANIFEST
            wanted = _manifest(archive)
            for name in archive.namelist():
                if name != MANIFEST and name not in wanted:
                    return f"its record {name} is not in its manifest"
            for name in _ALWAYS:
                if name not in wanted:
                    return f"its manifest does not list {name}"
            found = _records(archive)
    except _DAMAGE as error:
        return f"a part of it is not what was written: {error}"
    for name, entry in wanted.items():
        if name not in found:
            return f"its record {name} is missing"
        if found[name] != entry:
            return f"its record {name} is not what was written: the SHA-256 differs"
    return None


def _check_written(part: Path, records: Mapping[str, Mapping[str, Any]], num_bytes: int) -> None:
    """Compare what lies in a part file with what was to be written, before it replaces anything.

    The content of the records was checked when `records` was made.

    Args:
        part: the file, opened anew by its name.
        records: as `_records` found them, and as the manifest must have them.
        num_bytes: of the tensors.

    Raises:
        OSError: when they differ.
    """
    with zipfile.ZipFile(part) as archive:
        found = {info.filename: info.file_size for info in archive.infolist()}
        manifest = json.loads(archive.read(MANIFEST))["records"] if MANIFEST in found else None
    found.pop(MANIFEST, None)
    stored = sum(size for name, size in found.items() if name.startswith("archive/data/"))
    complete = all(name in found for name in _ALWAYS) and stored >= num_bytes
    if not complete or manifest != records or found != {name: entry["bytes"] for name, entry in records.items()}:
        raise OSError(
            f"the file has {len(found)} records with {stored} bytes of tensors,"
            f" but {len(records)} records with {num_bytes} bytes were written"
        )


def _manifest(archive: zipfile.ZipFile) -> dict[str, dict[str, Any]]:
    """What the manifest says of each record.

    Raises:
        ValueError: when it is larger than its records could make it. It is not read then: a few bytes of an archive can
            stand for terabytes.
    """
    size, most = archive.getinfo(MANIFEST).file_size, _BASE + _PER_RECORD * len(archive.namelist())
    if size > most:
        raise ValueError(f"its manifest has {size} bytes, and that of its records would have {most} at most")
    with archive.open(MANIFEST) as file:
        records = json.loads(file.read(most))["records"]
    if not isinstance(records, dict):
        raise ValueError("its manifest has no records")
    return records


_BASE, _PER_RECORD = 2**16, 2**10  # bytes; a name, a number and a SHA-256


def _records(archive: zipfile.ZipFile) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every record but the manifest; reading one checks the CRC that torch made in memory."""
    found = {}
    for info in archive.infolist():
        if info.filename == MANIFEST:
            continue
        digest = hashlib.sha256()
        with archive.open(info) as record:
            while block := record.read(_BLOCK):
                digest.update(block)
        found[info.filename] = {"bytes": info.file_size, "sha256": digest.hexdigest()}
    return found


def _check_room(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Before anything is written: the old one goes only when the new one stands, so both must fit."""
    wanted, free = num_bytes(checkpoint) + _REST, shutil.disk_usage(path.parent).free
    if wanted > free:
        reason = f"it needs {_mib(wanted)} and {_mib(free)} are free there"
        raise WriteError(_not_written(checkpoint, path, reason, _MAKE_ROOM))


def _not_written(checkpoint: Mapping[str, Any], path: Path, reason: str, fix: str) -> str:
    step = checkpoint.get("global_step")
    stands = "the one that stands there is whole; " if path.exists() else ""
    return f"no checkpoint of step {step} in {path}: {reason}\n    {stands}{fix}"


def num_bytes(checkpoint: object) -> int:
    """Bytes of the tensors in nested dicts and lists; what shares memory counts once, as torch writes it once.

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


class WholeCheckpoints(TorchCheckpointIO):
    """How Lightning reads and writes checkpoints here.

    Args:
        background: training waits only until the values are copied; a thread writes them. Twice the memory meanwhile.
    """

    def __init__(self, *, background: bool) -> None:
        super().__init__()
        self.background = background
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write it, or begin to; weights that are NaN are of no use to anyone and replace nothing.

        Raises:
            WriteError: when it, or in the background the one before, cannot be written.
        """
        self.wait()
        if bad := [name for name, tensor in checkpoint.get("state_dict", {}).items() if _has_nan(tensor)]:
            there = "what stands there stays" if Path(path).exists() else "it is not written"
            print_escaped(f"{path}: {bad[0]} has NaN at step {checkpoint['global_step']}; {there}", stderr=True)
            return
        if not self.background:
            write_whole(checkpoint, Path(path))
            return
        copied = apply_to_collection(checkpoint, Tensor, lambda t: t.detach().to("cpu", copy=True))
        self._writing = self._writer.submit(write_whole, cast(dict[str, Any], copied), Path(path))

    def wait(self) -> None:
        """Until what is being written stands.

        Raises:
            WriteError: when it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        """Read one, after what is being written stands."""
        self.wait()
        return super().load_checkpoint(path, *args, **options)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove one, after what is being written stands."""
        self.wait()
        super().remove_checkpoint(path)

    def teardown(self) -> None:
        """The end of training waits for the last one."""
        self.wait()
