"""Features over time: every kind of file, no pickle, pieces, the scale against scikit-learn, padding and masks."""

import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mmtrain.data.inputs.sequence import SequenceInput
from mmtrain.data.protocols import FittedKind, InputKind
from mmtrain.errors import ConfigError, SampleError

HERE = Path()
FRAMES = np.arange(12, dtype=np.float32).reshape(6, 2) / 7


def sequence_input(**changed: Any) -> SequenceInput:
    plain: dict[str, Any] = {"max_length": 100, "scale": "none", "array": None, "max_elements": 10**6}
    return SequenceInput(**plain | changed)


def fitted(cells: Any, folder: Path = HERE, **changed: Any) -> SequenceInput:
    reader = sequence_input(**changed)
    reader.fit(cells, folder)
    return reader


def frames(reader: SequenceInput, cell: Any, folder: Path = HERE, *, seed: int = 0, train: bool = False) -> Tensor:
    loaded = reader.load(cell, folder, seed=seed, train=train)
    assert loaded is not None
    return loaded[0]


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_all(folder: Path) -> list[str]:
    other = np.zeros((3, 5), dtype=np.float32)
    tensors = {"x": torch.tensor(FRAMES), "y": torch.tensor(other)}
    np.save(folder / "a.npy", FRAMES.astype(np.float64))
    np.savez(folder / "b.npz", x=FRAMES, y=other)
    np.savez_compressed(folder / "c.npz", x=FRAMES, y=other)
    torch.save(tensors["x"], folder / "d.pt")
    torch.save(tensors, folder / "e.pt")
    save_file(tensors, folder / "f.safetensors")
    save_file({"x": tensors["x"].double()}, folder / "g.SAFETENSORS")
    return ["a.npy", "b.npz", "c.npz", "d.pt", "e.pt", "f.safetensors", "g.SAFETENSORS"]


def test_it_is_an_input_that_learns() -> None:
    reader: InputKind = sequence_input()
    learned: FittedKind = sequence_input()
    assert isinstance(reader, FittedKind) and reader.kind == "sequence" and "none" in learned.fingerprint


def test_every_kind_of_file_gives_the_same_frames(tmp_path: Path) -> None:
    names = write_all(tmp_path)
    named = fitted(["b.npz"], tmp_path, array="x")
    for name in names:
        result = frames(fitted([name], tmp_path), name, tmp_path)
        assert result.dtype == torch.float32 and result.tolist() == FRAMES.tolist(), name
        if name not in ("a.npy", "d.pt"):
            assert frames(named, name, tmp_path).tolist() == FRAMES.tolist(), name
    assert frames(fitted(["f.safetensors"], tmp_path, array="y"), "f.safetensors", tmp_path).shape == (3, 5)


def test_lists_arrays_and_bytes_serve_as_well(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(npy(FRAMES))
    reader = fitted([FRAMES])
    cells: list[Any] = [FRAMES, FRAMES.tolist(), torch.tensor(FRAMES), npy(FRAMES), tmp_path / "a.npy"]
    cells += [{"bytes": npy(FRAMES), "path": "a.npy"}, {"bytes": None, "path": "a.npy"}]
    for cell in cells:
        assert frames(reader, cell, tmp_path).tolist() == FRAMES.tolist()
    assert frames(reader, torch.tensor(FRAMES).bfloat16()).dtype == torch.float32
    assert frames(reader, [[True, False], [True, True]]).tolist() == [[1.0, 0.0], [1.0, 1.0]]


def test_one_axis_is_one_feature_and_no_frame_is_no_sequence() -> None:
    reader = fitted([[1.0, 2.0, 3.0]])
    assert reader.dim == 1 and frames(reader, [4, 5]).tolist() == [[4.0], [5.0]]
    nothing: list[Any] = [[], np.zeros((0, 1)), npy(np.zeros((0, 7))), np.zeros((4, 0))]
    for empty in nothing:
        assert reader.load(empty, HERE, seed=0, train=True) is None


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("gone.npy", "gone.npy: no such file"),
        ("gone.pt", "gone.pt: no such file"),
        ("gone.safetensors", "gone.safetensors: no such file"),
        ("a.csv", "a.csv: .csv is not .npy, .npz, .pt or .safetensors"),
        ("features", "features: a name without a suffix is not .npy"),
        ("objects.npy", "objects.npy: damaged, or pickled objects, which are never read$"),
        ("pickle.npy", "pickle.npy: damaged, or pickled objects"),
        ("harm.pt", "harm.pt: damaged, or pickled objects"),
        ("list.pt", "list.pt: a list where a tensor is needed"),
        ("half.npy", "half.npy: .+"),
        ("half.npz", "half.npz: .+"),
        ("half.pt", "half.pt: .+"),
        ("half.safetensors", "half.safetensors: .+"),
        ("none.npz", "none.npz: no array in it"),
        (np.zeros((2, 3)), "3 features a frame where training has 2"),
        (np.zeros((2, 2, 2)), r"an array of shape \(2, 2, 2\) where \(T, D\) is needed"),
        (np.float32(1), r"an array of shape \(\) where"),
        (np.array([["a", "b"]]), "an array of <U1, not of numbers"),
        (np.zeros((2, 2), dtype=complex), "an array of complex128, not of numbers"),
        (torch.zeros(2, 2, dtype=torch.complex64), "an array of torch.complex64, not of numbers"),
        ([[1.0, 2.0], [3.0]], ".*inhomogeneous"),
        ([[1.0, "red"]], "red"),
        ([[1.0, None]], "NaN or an infinite number"),
        (npy([[1.0, np.nan]]), "144 bytes: NaN or an infinite number"),
        (npy([[1.0, -np.inf]]), "NaN or an infinite number"),
        ([[1.0, 1e39]], "NaN or an infinite number"),
        (b"no array", "8 bytes: .+"),
    ],
)
def test_a_wrong_cell_is_said(tmp_path: Path, cell: Any, message: str) -> None:
    for name in write_all(tmp_path):
        half = tmp_path / f"half{Path(name).suffix}"
        raw = (tmp_path / name).read_bytes()
        half.write_bytes(raw[: len(raw) // 2])
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps([1.0]))
    torch.save({"x": Harm()}, tmp_path / "harm.pt")
    torch.save([torch.tensor(FRAMES)], tmp_path / "list.pt")
    np.savez(tmp_path / "none.npz")
    (tmp_path / "a.csv").write_text("1,2\n")
    with pytest.raises(SampleError, match=message):
        fitted([FRAMES]).load(cell, tmp_path, seed=0, train=True)


class Harm:
    """What a pickle would run."""

    def __reduce__(self) -> Any:
        return print, ("harm",)


def test_an_array_that_is_not_in_the_file_is_said_with_those_that_are(tmp_path: Path) -> None:
    write_all(tmp_path)
    reader = fitted([FRAMES], array="z")
    for name in ("b.npz", "e.pt", "f.safetensors"):
        with pytest.raises(SampleError, match=f"{name}: no array z, but x, y"):
            reader.load(name, tmp_path, seed=0, train=False)


def test_the_scale_is_that_of_all_frames_of_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal([0, 1e4, 7], [1, 0.1, 0], (n, 3)).astype(np.float32) for n in (1, 40, 7, 300)]
    for number, array in enumerate(arrays):
        np.save(tmp_path / f"{number}.npy", array)
    reader = fitted(["0.npy", None, "1.npy", "", "2.npy", "3.npy", "gone.npy"], tmp_path, scale="standard")
    reference = StandardScaler().fit(np.concatenate(arrays).astype(np.float64))
    for number, array in enumerate(arrays[:3]):
        want = reference.transform(array.astype(np.float64))
        np.testing.assert_allclose(frames(reader, f"{number}.npy", tmp_path), want, rtol=1e-5, atol=1e-6)
    assert frames(reader, [[0.0, 0.0, 1e9]])[0, 2] == 0  # never changes in training


def test_the_most_frequent_width_counts() -> None:
    cells = [np.zeros((500, 3)), np.ones((4, 2)), np.zeros((2, 2)), "gone.npy"]
    for scale in ("standard", "none"):
        assert fitted(cells, scale=scale).dim == 2


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["gone.npy", "gone.pt"], "can be read as a sequence: such as gone.npy: no such file\n    name a column"),
        ([None, "", " ", []], "every cell is empty"),
    ],
)
@pytest.mark.parametrize("scale", ["standard", "none"])
def test_a_column_without_sequences_is_a_fault_of_the_configuration(cells: Any, message: str, scale: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fitted(cells, scale=scale)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scale": "minmax"}, "scale = minmax; set it to standard or none"),
        ({"max_length": 0}, "max_length = 0 keeps no frame; set it to 1 or more"),
    ],
)
def test_wrong_arguments_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sequence_input(**changed)


def test_evaluation_takes_the_middle() -> None:
    long = np.arange(11.0)
    for length, piece in ((11, range(11)), (3, range(4, 7)), (4, range(3, 7)), (1, [5])):
        reader = fitted([long], max_length=length)
        for seed in (0, 1):
            assert frames(reader, long, seed=seed)[:, 0].tolist() == list(piece)


def test_training_takes_a_piece_that_follows_from_the_seed() -> None:
    long = np.arange(11.0)
    reader = fitted([long], max_length=8)
    pieces = [frames(reader, long, seed=seed, train=True)[:, 0].tolist() for seed in range(100)]
    assert all(piece == list(np.arange(8) + piece[0]) for piece in pieces)
    assert {piece[0] for piece in pieces} == {0.0, 1.0, 2.0, 3.0}
    assert pieces == [frames(reader, long, seed=seed, train=True)[:, 0].tolist() for seed in range(100)]
    assert frames(reader, long[:8], seed=5, train=True)[:, 0].tolist() == list(range(8))


@pytest.mark.parametrize("scale", ["standard", "none"])
def test_what_was_saved_gives_the_same_bits(tmp_path: Path, scale: str) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(1 / 3, 1e-3, (n, 5)) for n in (3, 9)]
    reader = fitted(arrays, scale=scale)
    reader.save(tmp_path, "pose")
    assert [path.name for path in tmp_path.iterdir()] == ["scale_pose.json"]
    again = sequence_input(scale=scale)
    again.restore(tmp_path, "pose")
    assert again.dim == 5
    for array in arrays:
        assert torch.equal(frames(again, array), frames(reader, array))


def test_keys_are_those_of_the_content() -> None:
    reader = fitted([FRAMES], max_length=2)
    key = reader.key(FRAMES)
    loaded = reader.load(FRAMES.tolist(), HERE, seed=7, train=True)
    assert loaded is not None and loaded[1] == key != 0
    assert reader.key("a.npy") == reader.key({"bytes": None, "path": "a.npy"}) != reader.key("b.npy")
    long = np.zeros((5000, 2))
    other = long.copy()
    other[2500] = 1
    assert len({key, reader.key(FRAMES[:-1]), reader.key(FRAMES.T), reader.key(long), reader.key(other)}) == 5
    assert reader.key([["red"]]) != 0


def test_a_batch_is_padded_with_zeros_under_a_false_mask() -> None:
    reader = fitted([FRAMES])
    values, mask = reader.pad([torch.ones(2, 2), None, torch.ones(3, 2)])
    assert mask is not None and values.shape == (3, 3, 2) and values.dtype == torch.float32
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert (values.sum(-1) == 2 * mask).all()
    values, mask = reader.pad([None, None])
    assert mask is not None and values.shape == (2, 1, 2) and not values.any() and not mask.any()


def npy_that_says(head: str, body: bytes = b"", *, version: int = 1, length: int | None = None) -> bytes:
    raw = head.encode("latin1")
    size = len(raw) if length is None else length
    return b"\x93NUMPY" + bytes((version, 0)) + size.to_bytes(2 if version == 1 else 4, "little") + raw + body


def head_of(shape: str, kind: str = "'<f4'") -> str:
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"


def packed(name: str, content: bytes, zeros: int = 0) -> bytes:
    """An archive in which zeros take hardly any room."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as member:
        member.write(content)
        for _ in range(zeros // 10**6):
            member.write(bytes(10**6))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy_that_says(head_of("(500001, 2)")), r"shape \(500001, 2\), which has more than max_elements = 1000000"),
        (npy_that_says(head_of("(10**12, 1)".replace("10**12", "1" + "0" * 12))), "more than max_elements"),
        (npy_that_says(head_of("(1000001,)"), version=2), "more than max_elements"),
        (npy_that_says(head_of("(1000001,)"), version=3), "more than max_elements"),
        (npy_that_says(head_of("(-1, 2)")), "."),
        (npy_that_says(head_of("('a', 2)")), "."),
        (npy_that_says(head_of("(2, 2)", "'<U1000000'")), "an array of <U1000000, not of numbers"),
        (npy_that_says(head_of("(2, 2)", "'|O'")), "damaged, or pickled objects"),
        (npy_that_says("", version=2, length=2**32 - 1), "EOF"),
        (npy_that_says("((" * 3000, length=6000), "."),
        (packed("a.npy", npy_that_says(head_of("(5000000, 1)")), 60 * 10**6), "more than max_elements"),
        (packed("a.npy", npy_that_says(" " * 9000, version=2, length=10**9), 60 * 10**6), "EOF"),
        (packed("a.txt", b"", 60 * 10**6), "damaged, or pickled objects"),
    ],
)
def test_a_header_is_not_believed_before_memory_is_taken(content: bytes, message: str, tmp_path: Path) -> None:
    reader = fitted([FRAMES])
    (tmp_path / f"a.np{'z' if content.startswith(b'PK') else 'y'}").write_bytes(content)
    (name,) = (path.name for path in tmp_path.iterdir())
    tracemalloc.start()
    for value in (content, name):
        with pytest.raises(SampleError, match=message):
            reader.load(value, tmp_path, seed=0, train=False)
    assert tracemalloc.get_traced_memory()[1] < 20 * 10**6
    tracemalloc.stop()


def test_numpys_versions_and_orders_are_read() -> None:
    reader = fitted([FRAMES])
    for version in ((1, 0), (2, 0), (3, 0)):
        file = io.BytesIO()
        np.lib.format.write_array(file, np.asfortranarray(FRAMES), version=version)
        assert torch.equal(reader.load(file.getvalue(), HERE, seed=0, train=False)[0], torch.tensor(FRAMES))
    with pytest.warns(UserWarning, match="Python 2"):
        loaded = reader.load(npy_that_says(head_of("(6L, 2L)"), FRAMES.tobytes()), HERE, seed=0, train=False)
    assert torch.equal(loaded[0], torch.tensor(FRAMES))


def test_what_becomes_larger_than_its_file_is_not_read(tmp_path: Path) -> None:
    reader = fitted([FRAMES])
    large = 10**6 + 1
    torch.save(torch.zeros(1).expand(large, 2), tmp_path / "expanded.pt")
    one = torch.zeros(2, 1, dtype=torch.long)
    torch.save(torch.sparse_coo_tensor(one, torch.ones(1), (large, 2)), tmp_path / "sparse.pt")
    save_file({"a": torch.zeros(large)}, tmp_path / "a.safetensors")
    torch.save({"a": torch.tensor(FRAMES)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(tmp_path / "packed.pt", "w") as bad:
        for info in good.infolist():
            bad.writestr(info.filename, good.read(info), zipfile.ZIP_DEFLATED)
        bad.writestr("good/data/9", bytes(9 * 10**6), zipfile.ZIP_DEFLATED)
    for name in ("expanded.pt", "sparse.pt", "a.safetensors"):
        with pytest.raises(SampleError, match=f"{name}: an array of shape .*more than max_elements = 1000000"):
            reader.load(name, tmp_path, seed=0, train=False)
    with pytest.raises(SampleError, match=r"packed\.pt: 9\d+ bytes when unpacked, more than max_elements"):
        reader.load("packed.pt", tmp_path, seed=0, train=False)
    assert torch.equal(reader.load("good.pt", tmp_path, seed=0, train=False)[0], torch.tensor(FRAMES))
    with pytest.raises(SampleError, match="more than max_elements"):
        reader.load(np.zeros((large, 1)), HERE, seed=0, train=False)
    with pytest.raises(ValueError, match="max_elements = 0 keeps no frame"):
        sequence_input(max_elements=0)
