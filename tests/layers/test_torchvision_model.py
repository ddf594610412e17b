"""Torchvision weights: a file in the cache is read without running code."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from mmtrain.layers.torchvision_model import torchvision_weights


class Payload:
    """Unpickling this runs a command."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.proof}",)


def test_a_file_in_the_cache_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch checks the hash of downloads, but not of files that are already in the cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / Path(torchvision.models.ResNet18_Weights.DEFAULT.url).name
    file.parent.mkdir(parents=True)
    torch.save({"conv1.weight": Payload(tmp_path / "proof")}, file)
    with pytest.raises(ValueError, match=r"pretrained = true: torchvision's weights of resnet18 cannot be loaded"):
        torchvision_weights("resnet18", True)
    assert not (tmp_path / "proof").exists()
    torch.save({"conv1.weight": torch.ones(1)}, file)
    assert torchvision_weights("resnet18", True) == {"conv1.weight": torch.ones(1)}
