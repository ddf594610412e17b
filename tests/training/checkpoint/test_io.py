"""Checkpoints are complete or absent: old ones stay, damage is found in any place, and a full disk is reported."""

import json
import multiprocessing
import os
import signal
import time
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmtrain.errors import ConfigError
from mmtrain.io import atomic as atomic_files
from mmtrain.training.checkpoint import io as whole
from mmtrain.training.checkpoint.io import (
    MANIFEST,
    NO_MANIFEST,
    AtomicCheckpointIO,
    corruption_reason,
    num_bytes,
    write_checkpoint,
)
from mmtrain.training.checkpoint.load import load_checkpoint


def checkpoint_of(step: int, size: int = 2000) -> dict[str, Any]:
    weights = torch.full((size,), float(step))
    return {"global_step": step, "state_dict": {"a": weights, "tied": weights[:10]}, "mmtrain": {"version": "0"}}


def read(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True, mmap=True)


def test_what_is_written_is_read_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.ckpt"
    write_checkpoint(checkpoint_of(3), path)
    assert corruption_reason(path) is None
    assert read(path)["global_step"] == 3
    assert torch.equal(read(path)["state_dict"]["a"], torch.full((2000,), 3.0))
    assert [p.name for p in path.parent.iterdir()] == ["a.ckpt"]
    with zipfile.ZipFile(path) as archive:
        records = json.loads(archive.read(MANIFEST))["records"]
        assert {i.filename for i in archive.infolist()} == {*records, MANIFEST}
    assert all(len(r["sha256"]) == 64 and r["bytes"] >= 0 for r in records.values())


def test_a_bit_that_flips_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """It may lie in a time stamp, or between two records. In each case the error is ours."""
    path = tmp_path / "a.ckpt"
    write_checkpoint(checkpoint_of(3, size=40) | {"mmtrain": {"version": "0"}}, path)
    good, content = load_checkpoint(path), path.read_bytes()
    result = 0
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            now = load_checkpoint(path)
        except ConfigError:
            result += 1
        else:
            assert torch.equal(now["state_dict"]["a"], good["state_dict"]["a"]), place
            assert now["global_step"] == 3
    assert result > len(content) / 10


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_part_is_broken(share: float, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write_checkpoint(checkpoint_of(3), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert corruption_reason(path) is not None


def test_records_that_were_added_or_lost_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write_checkpoint(checkpoint_of(3), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/more", b"1")
    assert corruption_reason(path) == "the record archive/more is not in the manifest"
    torch.save(checkpoint_of(3), path)
    assert corruption_reason(path) == NO_MANIFEST
    with zipfile.ZipFile(path, "a") as archive:
        entry = {"bytes": 1, "sha256": "0" * 64}
        archive.writestr(MANIFEST, json.dumps({"records": {"archive/gone": entry}}))
    assert "is not in the manifest" in str(corruption_reason(path))


def test_what_shares_memory_counts_once() -> None:
    assert num_bytes(checkpoint_of(1)) == 8000


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(checkpoint_of(3), path)
    monkeypatch.setattr(whole.shutil, "disk_usage", lambda folder: SimpleNamespace(free=4 * 2**20))
    with pytest.raises(ConfigError) as caught:
        write_checkpoint(checkpoint_of(4, size=2**20), path)
    message = str(caught.value)
    assert message.startswith(
        f"{path}: the checkpoint of step 4 is not written: it needs 5.0 MiB, but 4.0 MiB are free"
    )
    assert "the existing checkpoint is complete" in message and "resume=auto" in message
    assert corruption_reason(path) is None and read(path)["global_step"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("writer failed\nat line 3")])
def test_a_disk_that_fills_while_it_is_written_costs_nothing(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(checkpoint_of(3), path)

    def fill(content: Any, file: Any) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(ConfigError, match=r"cannot be written: (.*No space left on device|writer failed)\n"):
        write_checkpoint(checkpoint_of(4), path)
    assert corruption_reason(path) is None and read(path)["global_step"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def write_on(path: str) -> None:
    """Until it is killed."""
    for step in range(10**6):
        write_checkpoint(checkpoint_of(step, size=200_000), Path(path))


def test_a_kill_while_it_is_written_leaves_one_that_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(checkpoint_of(0), path)
    left_parts = 0
    for number in range(8):
        process = multiprocessing.get_context("fork").Process(target=write_on, args=(str(path),))
        process.start()
        time.sleep(0.15 + 0.017 * number)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert corruption_reason(path) is None
        left_parts += len(list(tmp_path.iterdir())) - 1
    write_checkpoint(checkpoint_of(1), path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"], "what a kill left is cleared away"
    assert left_parts > 0, "no kill came while it was written"


def test_in_the_background_the_values_of_the_moment_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = AtomicCheckpointIO(background=True)
    weights = torch.zeros(1000)
    state = {"step": 0, "lists": [0]}
    checkpoint = {"global_step": 1, "state_dict": {"a": weights}, "state": state}
    slow = torch.save
    monkeypatch.setattr(torch, "save", lambda *args: (time.sleep(0.3), slow(*args)))
    checkpoints.save_checkpoint(checkpoint, tmp_path / "a.ckpt")
    weights += 1
    state["step"] = 5
    state["lists"].append(9)
    assert not (tmp_path / "a.ckpt").exists()
    checkpoints.teardown()
    result = read(tmp_path / "a.ckpt")
    assert result["state_dict"]["a"].sum() == 0 and result["state"] == {"step": 0, "lists": [0]}


def test_what_fails_in_the_background_is_said_at_the_next_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = AtomicCheckpointIO(background=True)
    monkeypatch.setattr(whole.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    checkpoints.save_checkpoint(checkpoint_of(1), tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match="the checkpoint of step 1 is not written"):
        checkpoints.wait()
    checkpoints.wait()


def test_an_archive_without_records_is_broken(tmp_path: Path) -> None:
    """As two processes left it that wrote one part file: a manifest and nothing else."""
    path = tmp_path / "a.ckpt"
    for names in ([], ["archive/version"]):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"3")
            records = whole._records(archive) if names else {}
            archive.writestr(MANIFEST, json.dumps({"records": records}))
        assert corruption_reason(path) == "the manifest does not list archive/data.pkl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, json.dumps({"records": ["archive/data.pkl", "archive/version"]}))
    assert str(corruption_reason(path)).startswith("it cannot be read completely")


@pytest.mark.parametrize("fault", ["emptied", "of another checkpoint", "with another manifest"])
def test_a_part_that_is_not_what_was_written_replaces_nothing(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any change by others, and in any file system."""
    path = tmp_path / "last.ckpt"
    write_checkpoint(checkpoint_of(3), path)
    write_checkpoint(checkpoint_of(5, size=10), tmp_path / "other" / "a.ckpt")
    check = whole._check_written

    def after(part: Path, *args: Any) -> None:
        if fault == "emptied":
            zipfile.ZipFile(part, "w").close()
        elif fault == "of another checkpoint":
            part.write_bytes((tmp_path / "other" / "a.ckpt").read_bytes())
        else:
            torch.save(checkpoint_of(4), part)
            with zipfile.ZipFile(part, "a") as archive:
                archive.writestr(MANIFEST, json.dumps({"records": whole._records(archive) | {"archive/more": {}}}))
        check(part, *args)

    monkeypatch.setattr(whole, "_check_written", after)
    with pytest.raises(
        ConfigError, match=r"the checkpoint of step 4 is not written: it cannot be written: the file has"
    ):
        write_checkpoint(checkpoint_of(4), path)
    assert corruption_reason(path) is None and read(path)["global_step"] == 3
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["last.ckpt"]


def test_every_write_has_a_part_file_of_its_own(tmp_path: Path) -> None:
    """What others are writing stays; what the killed have left goes."""
    path = tmp_path / "last.ckpt"
    gone = multiprocessing.get_context("fork").Process(target=int)
    gone.start()
    gone.join()
    mine, theirs, dead, elsewhere, old = (
        tmp_path / f".last.ckpt.{writer}.part"
        for writer in (
            *(f"{atomic_files._host()}-{os.getpid()}-00000000", f"{atomic_files._host()}-1-00000000"),
            *(f"{atomic_files._host()}-{gone.pid}-00000000", "elsewhere-7-00000000", "elsewhere-8-00000000"),
        )
    )
    for part in (mine, theirs, dead, elsewhere, old):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    with atomic_files.atomic_write(path) as part, atomic_files.atomic_write(path) as other:
        assert part != other and {part, other} <= set(tmp_path.iterdir())
        other.write_bytes(b"second")
        part.write_bytes(b"first")
    assert path.read_bytes() == b"first", "the outer one was put in place last"
    assert set(tmp_path.iterdir()) == {path, theirs, elsewhere}, "this process writes no part of that name"


def test_a_manifest_that_is_larger_than_its_records_is_not_read(tmp_path: Path) -> None:
    """A gigabyte of blanks is a megabyte in the archive."""
    path = tmp_path / "a.ckpt"
    torch.save(checkpoint_of(3), path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open(MANIFEST, "w") as file:
        for _ in range(64):
            file.write(b" " * 2**20)
        file.write(b'{"records": {}}')
    tracemalloc.start()
    try:
        assert "the manifest has 67108879 bytes, but at most" in str(corruption_reason(path))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("manifest", ["{}", "[]", "3", '{"records": []}', '{"records": 3}', "[" * 30000])
def test_a_manifest_that_is_none_is_damage(manifest: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(checkpoint_of(3), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MANIFEST, manifest)
    assert str(corruption_reason(path)).startswith("it cannot be read completely: ")
