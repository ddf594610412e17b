"""What is written for others gives the same output in a process that does not have this project."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn

from mmtrain.errors import ConfigError
from mmtrain.export import export_encoder, export_model, merge_adapters
from mmtrain.tuning import Tuning, tune
from mmtrain.types import Batch
from tests.batches import make_encoders, make_model, random_batch

LOADING = """
import sys
import torch
program = torch.export.load(sys.argv[1]).module()
torch.save([program(*arguments) for arguments in torch.load(sys.argv[2])], sys.argv[3])
assert not any(name.split(".")[0] == "mmtrain" for name in sys.modules)
"""


def outputs_elsewhere(folder: Path, arguments: list[tuple[object, ...]]) -> list[object]:
    """What the exported program gives in a process of its own."""
    torch.save(arguments, folder / "arguments.pt")
    command = [sys.executable, "-P", "-c", LOADING, "model.pt2", "arguments.pt", "outputs.pt"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return torch.load(folder / "outputs.pt", weights_only=True)


def full_batches() -> list[Batch]:
    """Of several sizes, rows that have everything."""
    batches = [random_batch(seed, size=size) for seed, size in enumerate((4, 1, 7))]
    return [b.map(lambda t: torch.ones_like(t) if t.dtype is torch.bool and t.ndim == 1 else t) for b in batches]


def tensors(batch: Batch) -> dict[str, dict[str, Tensor]]:
    padded = batch.inputs.items()
    return {m: {"values": p.values} | ({} if p.mask is None else {"mask": p.mask}) for m, p in padded}


@pytest.mark.parametrize("modality", ["image", "text"])
def test_an_encoder_elsewhere(modality: str, tmp_path: Path) -> None:
    encoder = make_encoders()[modality].double()
    inputs = [tensors(batch)[modality] for batch in full_batches()]
    code = export_encoder(encoder, inputs[0], tmp_path)
    assert "torch.export.load" in code
    theirs = outputs_elsewhere(tmp_path, [tuple(given.values()) for given in inputs])
    for given, (tokens, mask) in zip(inputs, theirs, strict=True):
        mine = encoder(given["values"], given.get("mask")).cleared()
        assert torch.equal(tokens, mine.tokens) and torch.equal(mask, mine.mask)


def test_a_whole_model_elsewhere(tmp_path: Path) -> None:
    model = make_model().eval()
    batches = full_batches()
    export_model(model, tensors(batches[0]), tmp_path)
    theirs = outputs_elsewhere(tmp_path, [(tensors(batch),) for batch in batches])
    for batch, predictions in zip(batches, theirs, strict=True):
        mine = model(batch)
        assert set(predictions) == {"contrastive", "classification"}
        torch.testing.assert_close(predictions["classification"], mine["classification"], rtol=0, atol=1e-12)
        for modality, vectors in predictions["contrastive"].items():
            torch.testing.assert_close(vectors, mine["contrastive"][modality], rtol=0, atol=1e-6)


def test_a_model_without_anything_to_say_of_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no task of matching says something of one row\n    export an encoder"):
        export_model(make_model(tasks=["matching"]), {}, tmp_path)


def test_adapters_are_merged() -> None:
    encoder = make_encoders()["text"].double().eval()
    names = set(encoder.state_dict())
    tune(encoder, Tuning(peft=LoraConfig(r=2, init_lora_weights=False)))
    values = full_batches()[0].inputs["text"]
    before = encoder(*values).tokens
    merge_adapters(encoder)
    torch.testing.assert_close(encoder(*values).tokens, before, rtol=0, atol=1e-7)
    assert set(encoder.state_dict()) == names


class Unclear(nn.Module):
    """Its output's shape is a number that no graph knows."""

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.zeros(int(values.sum().item() * 3) % 5 + 1)


def test_what_torch_cannot_follow_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"torch\.export cannot follow Alone"):
        export_encoder(Unclear(), {"values": torch.randn(2, 3)}, tmp_path)
