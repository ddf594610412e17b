"""Weights alone: they come back bit for bit, any reader opens them, and what is damaged, cut or foreign is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmtrain.errors import ConfigError
from mmtrain.training.checkpoint.load import best_checkpoint, load_checkpoint
from mmtrain.training.checkpoint.safetensors import write_weights
from tests.runs import run_tiny
from tests.tiny import make_tables


def checkpoint_of(version: str = "0") -> dict[str, Any]:
    table = torch.randn(5, 3)
    weights = {
        "table": table,
        "tied": table.t(),
        "half": torch.randn(4).to(torch.bfloat16),
        "steps": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0, 2),
    }
    record = {"version": version, "command": "python train.py", "names": {"targets.label": ["cat", "Käse"]}}
    return {"state_dict": weights, "global_step": 12, "mmtrain": record, "optimizer_states": [1]}


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(str(path)) and len(str(caught.value).splitlines()) == 2
    return str(caught.value)


def test_weights_come_back_as_they_were_with_their_record(tmp_path: Path) -> None:
    path, checkpoint = tmp_path / "new" / "best.safetensors", checkpoint_of()
    write_weights(checkpoint, path)
    result = load_checkpoint(path)
    assert result.keys() == {"state_dict", "global_step", "mmtrain"}
    assert result["global_step"] == 12 and result["mmtrain"] == checkpoint["mmtrain"]
    for weights in (result["state_dict"], load_file(path)):
        assert weights.keys() == checkpoint["state_dict"].keys()
        for name, tensor in checkpoint["state_dict"].items():
            assert weights[name].dtype == tensor.dtype and torch.equal(weights[name], tensor), name
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    (tmp_path / "any").touch()
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_bit_that_flips_and_an_end_that_is_missing_are_found(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    write_weights(checkpoint_of(), path)
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:  # a space behind the header's text may become another blank
            assert load_checkpoint(path)["mmtrain"] == checkpoint_of()["mmtrain"], place
            assert place < len(content) - 80, place
        except ConfigError:
            pass
    for length in (0, 7, 200, len(content) - 1):
        path.write_bytes(content[:length])
        assert "not a safetensors file, or an incomplete one" in refused(path)


def test_another_file_and_a_newer_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    assert "its header has no metadata of mmtrain" in refused(path)
    write_weights(checkpoint_of(version="99.0"), path)
    assert "install mmtrain 99.0 or newer" in refused(path)


def test_what_stands_there_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.safetensors"
    write_weights(checkpoint_of(), path)

    def full(tensors: object, part: Path, metadata: object) -> None:
        part.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("mmtrain.training.checkpoint.safetensors.save_file", full)
    with pytest.raises(ConfigError, match=r"cannot be written: No space left on device\n    fix: free space"):
        write_weights(checkpoint_of(), path)
    assert load_checkpoint(path)["global_step"] == 12 and len(list(tmp_path.iterdir())) == 1


def test_a_run_leaves_its_best_weights_and_others_start_and_test_with_them(tmp_path: Path) -> None:
    tables = make_tables(tmp_path / "data")
    first = tmp_path / "first"
    assert run_tiny(tables, first) == 0
    path = first / "checkpoints" / "best.safetensors"
    best, alone = load_checkpoint(path.with_suffix(".ckpt")), load_checkpoint(path)
    assert alone["global_step"] == best["global_step"] and alone["mmtrain"] == best["mmtrain"]
    assert all(torch.equal(tensor, alone["state_dict"][name]) for name, tensor in best["state_dict"].items())

    before = json.loads((first / "summary.json").read_text())["test"]
    path.with_suffix(".ckpt").unlink()
    path.with_name("last.ckpt").unlink()
    assert best_checkpoint(first) == path
    assert run_tiny(tables, first, "mode=test") == 0
    assert json.loads((first / "summary.json").read_text())["test"] == before
    assert run_tiny(tables, first) == 2  # the folder holds a run

    assert run_tiny(tables, tmp_path / "second", f"init_from={path}", "checkpoint.safetensors=false") == 0
    assert not (tmp_path / "second" / "checkpoints" / "best.safetensors").exists()
