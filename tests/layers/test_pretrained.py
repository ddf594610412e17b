"""Pretrained weights: positions against timm's, files without weights, messages."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import nn

from mmtrain.layers.pretrained import load_weights, read_weights, resized_grid, resized_line


@pytest.mark.parametrize("num_prefix", [0, 1, 5])
@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (3, 5)])
def test_a_grid_is_resized_as_timm_does(num_prefix: int, grid: tuple[int, int]) -> None:
    positions = torch.randn(1, num_prefix + 16, 6)
    expected = resample_abs_pos_embed(positions, list(grid), num_prefix_tokens=num_prefix)
    resized = resized_grid(positions, grid, num_prefix=num_prefix)
    torch.testing.assert_close(resized, expected, rtol=0, atol=1e-6)
    assert torch.equal(resized[:, :num_prefix], positions[:, :num_prefix])
    assert resized_grid(positions.bfloat16(), grid, num_prefix=num_prefix).dtype is torch.bfloat16


def test_no_square_is_refused() -> None:
    with pytest.raises(ValueError, match="17 positions of patches are not a square grid"):
        resized_grid(torch.randn(1, 18, 4), (4, 4), num_prefix=1)


@pytest.mark.parametrize("length", [3, 5, 12])
def test_a_line_is_resized_between_its_ends(length: int) -> None:
    positions = torch.randn(1, 5, 2, dtype=torch.float64)
    resized = resized_line(positions, length)
    assert resized.shape == (1, length, 2) and resized.dtype is torch.float64
    for place in range(length):
        exact = place * 4 / (length - 1)
        low = min(int(exact), 3)
        share = exact - low
        expected = (1 - share) * positions[0, low] + share * positions[0, low + 1]
        torch.testing.assert_close(resized[0, place], expected, rtol=0, atol=1e-6)


def test_both_kinds_of_files_are_read(tmp_path: Path) -> None:
    weights = {"a.weight": torch.randn(2, 3), "b": torch.arange(4)}
    save_file(weights, tmp_path / "one.safetensors")
    torch.save(weights, tmp_path / "other.pth")
    for name in ("one.safetensors", "other.pth"):
        result = read_weights(tmp_path / name)
        assert result.keys() == weights.keys() and all(torch.equal(result[n], w) for n, w in weights.items())


class Payload:
    """A pickle that runs code when it is loaded."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.witness), "w"))


def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    torch.save({"a": torch.zeros(1), "b": Payload(witness)}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(witness), protocol=2))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(ValueError, match=rf"pretrained = .*{name} cannot be read as weights: "):
            read_weights(tmp_path / name)
    assert not witness.exists()
    torch.load(tmp_path / "zip.pth", weights_only=False)["b"].close()
    assert witness.exists()  # the payload works


def test_what_holds_no_weights_is_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"pretrained = nowhere.pth is not a file; set it to a weights file, .safetensors or"
    ):
        read_weights("nowhere.pth")
    for name in ("torn.safetensors", "torn.pth", "empty.pth"):
        (tmp_path / name).write_bytes(b"" if name == "empty.pth" else b"not weights")
        with pytest.raises(ValueError, match=rf"{name} cannot be read as weights: "):
            read_weights(tmp_path / name)
    for held in ({"state_dict": {"a": torch.zeros(1)}}, [torch.zeros(1)], {"a": torch.zeros(1), "epoch": 3}):
        torch.save(held, tmp_path / "more.pth")
        with pytest.raises(ValueError, match=r"contains more than tensors by name; save only the state dict"):
            read_weights(tmp_path / "more.pth")


def test_weights_go_into_every_parameter_and_buffer() -> None:
    theirs, mine = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    theirs(torch.randn(8, 3))
    load_weights(mine, {**theirs.state_dict(), "head.weight": torch.zeros(1)}, name="x", ignore=("head.",))
    x = torch.randn(2, 3)
    assert torch.equal(mine.eval()(x), theirs.eval()(x))


def test_what_does_not_fit_is_said() -> None:
    net = nn.Linear(3, 4)
    weights = net.state_dict()
    for change, said in (
        ({"head.weight": torch.zeros(1)}, "head.weight is not in this encoder"),
        ({"weight": torch.zeros(2, 3)}, r"weight is \(2, 3\) in the file and \(4, 3\) in the encoder"),
    ):
        with pytest.raises(ValueError, match=rf"pretrained = x does not fit: {said}\n +set the sizes of the encoder"):
            load_weights(net, {**weights, **change}, name="x")
    with pytest.raises(
        ValueError, match="weight is missing in the file; bias is missing in the file; a is not in this encoder, and 2"
    ):
        load_weights(net, {n: torch.zeros(1) for n in "abc"}, name="x")
    assert all(torch.equal(w, weights[n]) for n, w in net.state_dict().items())


def test_a_head_that_the_module_has_is_not_ignored() -> None:
    net = nn.ModuleDict({"head": nn.Linear(2, 2)})
    weights = {n: torch.randn_like(w) for n, w in net.state_dict().items()}
    load_weights(net, weights, name="x", ignore=("head.",))
    assert all(torch.equal(w, weights[n]) for n, w in net.state_dict().items())
