"""Checkpoints: which file is one and which is taken, what does not fit, and which weights another model takes."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmtrain.errors import ConfigError
from mmtrain.training.checkpoint.io import write_checkpoint
from mmtrain.training.checkpoint.load import (
    NewestCheckpoint,
    best_checkpoint,
    check_same_model,
    load_checkpoint,
    newest_checkpoint,
)

COMMAND = "python train.py dim=6"


class Trained(nn.Module):
    """Named as a `LitModel` names its parts."""

    def __init__(self, dim: int = 6, *, task: str = "contrastive", fusion: bool = True) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.encoders = nn.ModuleDict({"image": nn.Linear(4, dim), "text": nn.Embedding(9, dim)})
        if fusion:
            self.model.fusion = nn.Linear(dim, dim)
        self.model.tasks = nn.ModuleDict({task: nn.Linear(dim, 3)})


def checkpoint_of(module: nn.Module, step: int = 5) -> dict[str, Any]:
    facts = {"seed": 0}
    return {
        "state_dict": module.state_dict(),
        "global_step": step,
        "mmtrain": {"version": "0", "command": COMMAND, "facts": facts},
    }


def saved(path: Path, step: int = 5) -> Path:
    write_checkpoint(checkpoint_of(Trained(), step), path)
    return path


class Payload:
    """Unpickling this runs a command."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.proof}",)


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith("such as RUN/checkpoints/last.ckpt")
    assert len(message.splitlines()) == 2
    return message


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    result = load_checkpoint(saved(tmp_path / "a.ckpt"))
    assert result["global_step"] == 5 and result["mmtrain"]["command"] == COMMAND
    assert {n: t.shape for n, t in result["state_dict"].items()} == {
        n: t.shape for n, t in Trained().state_dict().items()
    }


def test_another_file_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"no checkpoint\n", pickle.dumps({"state_dict": {}}), os.urandom(3000)):
        (tmp_path / "a.ckpt").write_bytes(content)
        assert ": not a checkpoint" in refused(tmp_path / "a.ckpt")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_a_part_of_a_checkpoint_is_refused(tmp_path: Path, share: float) -> None:
    full = saved(tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "a.ckpt").write_bytes(full[: int(len(full) * share)])
    assert "or an incomplete one" in refused(tmp_path / "a.ckpt")


def test_archives_and_checkpoints_of_others_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("data.txt", "hello")
    assert "cannot be read as a checkpoint" in refused(tmp_path / "a.ckpt")
    for content in ({"state_dict": {}}, {"mmtrain": {}}, [1, 2]):
        torch.save(content, tmp_path / "b.ckpt")
        assert "not a checkpoint of mmtrain" in refused(tmp_path / "b.ckpt")
    assert "does not exist" in refused(tmp_path / "c.ckpt")


@pytest.mark.parametrize("archive", [True, False])
def test_loading_runs_no_code(tmp_path: Path, archive: bool) -> None:
    path, proof = tmp_path / "a.ckpt", tmp_path / "ran"
    torch.save(checkpoint_of(Trained()) | {"more": Payload(proof)}, path, _use_new_zipfile_serialization=archive)
    message = refused(path)
    assert ("could run code" in message) == archive
    assert not proof.exists()
    torch.load(path, weights_only=False)  # otherwise the payload would prove nothing
    assert proof.exists()


def test_a_damaged_checkpoint_is_refused_with_what_is_damaged(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt")
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith("data/0"))
    content = bytearray(path.read_bytes())
    content[info.header_offset + 200] ^= 4
    path.write_bytes(content)
    assert "damaged: " in refused(path) and "data/0" in refused(path)
    torch.save(checkpoint_of(Trained()), path)
    assert "damaged: it has no manifest" in refused(path)


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(Trained())
    checkpoint["mmtrain"]["version"] = "99.1"
    write_checkpoint(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match=r"written by mmtrain 99\.1, but this is .*\n    fix: install mmtrain 99\.1"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_the_best_is_taken_and_else_the_last(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"contains no checkpoint\n    fix: set run_dir to the folder of a training run"
    ):
        best_checkpoint(tmp_path)
    last = saved(tmp_path / "checkpoints/last.ckpt")
    assert best_checkpoint(tmp_path) == last
    best = saved(tmp_path / "checkpoints/best.ckpt")
    assert best_checkpoint(tmp_path) == best


def test_going_on_takes_the_whole_checkpoint_that_got_furthest(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) == NewestCheckpoint(None, [])
    folder = tmp_path / "checkpoints"
    best = saved(folder / "best.ckpt", step=8)
    assert newest_checkpoint(tmp_path).path == best
    last = saved(folder / "last.ckpt", step=8)
    assert newest_checkpoint(tmp_path).path == last, "at one step the last is the later"
    saved(folder / "best.ckpt", step=4)
    os.utime(last, (0, 0))  # a copied folder has any times
    assert newest_checkpoint(tmp_path) == NewestCheckpoint(last, [])
    last.write_bytes(last.read_bytes()[:500])
    result = newest_checkpoint(tmp_path)
    assert result.path == best
    assert result.rejected == [f"skipped: {last}: not a checkpoint, or an incomplete one"]
    best.write_bytes(b"")
    assert newest_checkpoint(tmp_path).path is None


def test_the_same_model_is_welcome() -> None:
    check_same_model(checkpoint_of(Trained()), Trained(), Path("a.ckpt"))


def test_another_model_is_refused_with_what_differs(tmp_path: Path) -> None:
    def differences(module: nn.Module) -> str:
        with pytest.raises(ConfigError) as caught:
            check_same_model(checkpoint_of(Trained()), module, tmp_path / "a.ckpt")
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / 'a.ckpt'}: a checkpoint of another model")
        assert f"its command: {COMMAND}" in message and "init_from" in message
        return message

    message = differences(Trained(fusion=False))
    assert "model.fusion.weight is not in this model" in message and "model.fusion.bias is not in this model" in message
    message = differences(Trained(task="matching"))
    assert "model.tasks.matching.weight is not in the checkpoint" in message
    assert "model.tasks.contrastive.weight is not in this model" in message
    message = differences(Trained(8))
    assert (
        "model.encoders.image.weight is (6, 4) in the checkpoint and (8, 4) here" in message
        and "... and 2 more" in message
    )


@pytest.mark.parametrize("version", ["", "x" * 5000, "1" * 5000, "1.0; import os", None, 3, ["1"], {"a": 1}])
def test_a_checkpoint_whose_version_is_none_is_refused(version: Any, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(Trained())
    checkpoint["mmtrain"]["version"] = version
    write_checkpoint(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match=r"not a checkpoint of mmtrain: its version .* is not a version"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("record", [None, 3, [], {}, "0"])
def test_a_checkpoint_whose_record_is_none_is_refused(record: Any, tmp_path: Path) -> None:
    write_checkpoint(checkpoint_of(Trained()) | {"mmtrain": record}, tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match="not a checkpoint of mmtrain"):
        load_checkpoint(tmp_path / "a.ckpt")
