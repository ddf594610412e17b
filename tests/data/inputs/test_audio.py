"""Sound columns: every way to write a sound, random pieces and masks that follow from the seed alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmtrain.build import build_data, compose
from mmtrain.data.inputs import audio
from mmtrain.data.inputs.audio import AudioInput
from mmtrain.data.inputs.image import key_of
from mmtrain.data.protocols import InputKind
from mmtrain.errors import ConfigError, SampleError
from tests.data.films import encoded_sound, tone, wav, write_film


def audio_input(**changed: Any) -> AudioInput:
    plain: dict[str, Any] = {"sample_rate": 16000, "max_seconds": 2.0, "noise": 0.0, "time_mask": 0.0, "freq_mask": 0.0}
    return AudioInput(**plain | changed)


def loaded(reader: AudioInput, value: Any, folder: Path = Path(), *, seed: int = 0, train: bool = False) -> Tensor:
    result = reader.load(value, folder, seed=seed, train=train)
    assert result is not None and result[0].dtype == torch.float32 and result[0].ndim == 1
    return result[0]


def test_it_is_a_kind_of_input() -> None:
    reader: InputKind = audio_input()
    assert reader.kind == "audio"


def test_paths_bytes_dicts_and_samples_are_the_same_sound(tmp_path: Path) -> None:
    samples = tone(0.5, 16000)
    data = wav(samples, rate=16000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.wav").write_bytes(data)
    reader = audio_input()
    values = [
        "in/a.wav",
        str(tmp_path / "in/a.wav"),
        data,
        {"path": "in/a.wav", "bytes": None},
        {"path": "elsewhere.wav", "bytes": data},
        samples,
        samples.tolist(),
        (samples * 32767).round().astype(np.int16),
        np.stack([samples, samples]),
        {"path": "a.wav", "array": samples, "sampling_rate": 16000},
    ]
    for value in values:
        assert np.abs(loaded(reader, value, tmp_path).numpy() - samples).max() < 1e-4


def test_samples_at_another_rate_are_resampled() -> None:
    low = tone(1.0, 8000)
    result = loaded(audio_input(), {"array": low, "sampling_rate": 8000})
    assert len(result) == 16000
    assert np.abs(result.numpy() - tone(1.0, 16000))[800:-800].max() < 5e-3
    assert torch.equal(
        result, loaded(audio_input(), {"array": torch.from_numpy(low).float().numpy(), "sampling_rate": 8000})
    )


def test_keys_are_of_the_cell() -> None:
    reader, samples = audio_input(), np.arange(5000) / 5000
    assert reader.key("a.wav") == key_of("a.wav") == reader.key({"path": "a.wav", "bytes": None})
    assert reader.key(b"abc") == key_of(b"abc") == reader.key({"path": "a.wav", "bytes": b"abc"})
    changed = samples.copy()
    changed[2500] += 0.1
    assert reader.key(samples) == reader.key(samples.tolist()) == reader.key({"array": samples, "sampling_rate": 8000})
    assert reader.key(samples) != reader.key(changed)


FORMS = {
    "float": lambda x: x.tolist(),
    "float16": lambda x: x.astype(np.float16),
    "int16": lambda x: (x * 32767).round().astype(np.int16),
    "int16 as a list": lambda x: (x * 32767).round().astype(int).tolist(),
    "int32": lambda x: (x * (2**31 - 1)).round().astype(np.int32),
    "int32 as a list": lambda x: (x * (2**31 - 1)).round().astype(int).tolist(),
    "uint8": lambda x: (x * 127 + 128).round().astype(np.uint8),
    "uint8 as a list": lambda x: (x * 127 + 128).round().astype(int).tolist(),
    "uint16 as a list": lambda x: (x * 32767 + 32768).round().astype(int).tolist(),
    "channels first": lambda x: np.stack([x, x]).tolist(),
    "channels last": lambda x: np.stack([x, x], 1).tolist(),
    "one channel last": lambda x: x[:, None].tolist(),
    "int16, channels last": lambda x: np.stack([x * 32767] * 2, 1).astype(int).tolist(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_tone_is_as_loud_in_every_form(form: str) -> None:
    samples = tone(0.3, 16000)
    value = FORMS[form](samples)
    for cell in (value, {"array": value, "sampling_rate": 16000}):
        result = loaded(audio_input(), cell).numpy()
        assert len(result) == len(samples) and np.abs(result - samples).max() < 0.01
        assert abs(np.sqrt((result**2).mean() / (samples**2).mean()) - 1) < 0.01


def test_a_little_beyond_1_is_cut_as_in_files() -> None:
    assert loaded(audio_input(), [0.5] * 200 + [1.1]).tolist()[-2:] == [0.5, 1.0]


@pytest.mark.parametrize("kind", ["path", "samples", "mp3"])
def test_of_a_long_sound_evaluation_takes_the_middle_and_training_any_piece(tmp_path: Path, kind: str) -> None:
    samples = tone(3.0, 16000)
    (tmp_path / "a.wav").write_bytes(wav(samples, rate=16000))
    value: Any = {"path": "a.wav", "samples": samples}.get(kind)
    if kind == "mp3":
        value = encoded_sound(samples, 16000, "mp3", "libmp3lame")
    reader = audio_input(max_seconds=1.0)
    tolerance = 0.02 if kind == "mp3" else 1e-4
    assert np.abs(loaded(reader, value, tmp_path).numpy() - samples[16000:32000]).max() < tolerance
    starts = set()
    for seed in range(8):
        piece = loaded(reader, value, tmp_path, seed=seed, train=True)
        assert len(piece) == 16000
        errors = [(np.abs(piece.numpy()[:400] - samples[s : s + 400]).max(), s) for s in range(32001)]
        assert min(errors)[0] < tolerance
        starts.add(min(errors)[1])
        assert torch.equal(piece, loaded(reader, value, tmp_path, seed=seed, train=True))
    assert len(starts) == 8 and max(starts) - min(starts) > 16000


def test_a_film_gives_its_sound_and_a_silent_one_none(tmp_path: Path) -> None:
    write_film(tmp_path / "loud.mp4", 100, sound=tone(1.0, 16000))
    write_film(tmp_path / "silent.mp4", 10)
    # The film is longer than its sound, and a piece of the film's length can lie where there is none.
    assert len(loaded(audio_input(max_seconds=0.5), "loud.mp4", tmp_path)) == 8000
    assert audio_input().load("silent.mp4", tmp_path, seed=0, train=False) is None


def test_one_column_of_films_is_read_as_films_and_as_their_sound(tmp_path: Path) -> None:
    write_film(tmp_path / "loud.mp4", 10, sound=tone(0.4, 16000))
    write_film(tmp_path / "silent.mp4", 10)
    rows = [json.dumps({"video": f"{name}.mp4", "label": name}) for name in ("loud", "silent")]
    for split in ("train", "val"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows))
    requested = ["data=files", f"data.root={tmp_path}", "data.columns.audio=video", "data.batch_size=1"]
    data = build_data(compose(requested))
    data.read(tmp_path / "run", training=True)
    split = data.split("val")
    assert [set(split[(0, row)].inputs) for row in (0, 1)] == [{"video", "audio"}, {"video"}]


@pytest.mark.parametrize("knob", [{"noise": 0.5}, {"time_mask": 0.5}, {"freq_mask": 0.5}])
def test_draws_follow_from_the_seed_alone_and_only_in_training(knob: dict[str, float]) -> None:
    reader, samples = audio_input(**knob), tone(1.0, 16000)
    plain = torch.from_numpy(samples).float()
    assert torch.equal(loaded(reader, samples, seed=1), plain)
    state = torch.get_rng_state()
    drawn = [loaded(reader, samples, seed=seed, train=True) for seed in range(6)]
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    assert all(torch.equal(d, loaded(reader, samples, seed=s, train=True)) for s, d in enumerate(drawn))
    assert all(not torch.equal(a, b) for n, a in enumerate(drawn) for b in drawn[:n])
    assert all(len(d) == 16000 and d.isfinite().all() for d in drawn)


def test_noise_is_relative_to_the_sound() -> None:
    samples = tone(1.0, 16000)
    rms = float(np.sqrt((samples**2).mean()))
    results = [loaded(audio_input(noise=0.2), samples, seed=s, train=True) for s in range(40)]
    levels = [float((f - torch.from_numpy(samples)).std()) / rms for f in results]
    assert 0.0 < min(levels) < 0.04 and 0.16 < max(levels) < 0.205
    assert not loaded(audio_input(noise=0.2), np.zeros(100), train=True).any()


def test_a_time_mask_silences_one_span_and_leaves_the_rest() -> None:
    white = np.random.default_rng(0).choice([-0.1, 0.1], size=16000)  # never near zero by chance
    shares = []
    for seed in range(40):
        result = loaded(audio_input(time_mask=0.3), white, seed=seed, train=True).numpy()
        silent = np.abs(result) < 1e-6
        kept = np.abs(result - white) < 1e-5
        assert (silent | kept).mean() > 0.94  # but for the slopes
        shares.append(silent.mean())
        if silent.sum() > 1:
            first, last = np.flatnonzero(silent)[[0, -1]]
            assert silent[first : last + 1].mean() > 0.99
    assert max(shares) <= 0.3 and max(shares) > 0.2 and min(shares) < 0.05


def test_a_frequency_mask_removes_one_band_and_leaves_the_rest() -> None:
    white = np.random.default_rng(0).normal(size=16000) * 0.1
    before = np.abs(np.fft.rfft(white))
    shares = []
    for seed in range(40):
        result = loaded(audio_input(freq_mask=0.3), white, seed=seed, train=True).numpy()
        after = np.abs(np.fft.rfft(result)).reshape(-1)[:8000].reshape(80, 100).mean(1) / before[:8000].reshape(
            80, 100
        ).mean(1)
        shares.append((after < 0.1).mean())
        assert ((after < 0.1) | (after > 0.9)).mean() > 0.9
    assert max(shares) <= 0.31 and max(shares) > 0.2 and min(shares) < 0.05


@pytest.mark.parametrize("length", [1, 2, 7, 100, 511])
def test_the_shortest_sounds_can_be_masked(length: int) -> None:
    reader = audio_input(time_mask=0.5, freq_mask=0.5, noise=0.1)
    for seed in range(5):
        result = loaded(reader, tone(1.0, 16000)[-length:], seed=seed, train=True)
        assert len(result) == length and result.isfinite().all()


def test_a_batch_is_padded_with_zeros_and_the_mask_says_where() -> None:
    values, mask = audio_input().pad([torch.ones(3), None, torch.ones(5)])
    assert mask is not None and values.shape == mask.shape == (3, 5) and mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [3, 0, 5] and torch.equal(values, mask.float())
    assert mask[0].tolist() == [True] * 3 + [False] * 2
    assert audio_input().pad([None, None]).values.shape == (2, 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"some text\n" * 50, "neither sound nor film"),
        (wav(tone(1.0, 16000), rate=16000)[:16000], "is cut short"),
        (wav(np.zeros(0), rate=16000), "holds no samples"),
    ],
)
def test_what_cannot_be_read_is_named_as_in_the_table(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    for value, name in (("a.wav", "a.wav"), (content, f"{len(content)} bytes")):
        with pytest.raises(SampleError, match=reason) as raised:
            audio_input().load(value, tmp_path, seed=0, train=False)
        assert raised.value.file == name


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "holds no samples"),
        ([0.1, float("nan")], "not finite"),
        ([0.1] * 99999 + [float("nan")], "not finite"),
        ([["a"]], "is not an array of samples"),
        (np.zeros((1, 1, 4)), r"shape \(1, 1, 4\); give \(length,\), \(channels, length\) or"),
        (np.zeros((70, 80)), r"shape \(70, 80\); .* at most 64 channels"),
        ([0.5, 20.0, 0.1], "has floats up to 20 .1 of them beyond -1..1.; divide them"),
        (np.sin(np.arange(99)) * 1.5, "has floats up to 1.49.* .5. of them beyond"),
        ([0.5, float("inf")], "has floats up to inf"),
        ([100_000, -100_000], "integers from -100000 to 100000, .* 16, 24 or 32 bits; store int16"),
        (np.array([30000, -30000], np.int32), "integers from -30000 to 30000"),
        ([2**40, 0], "integers from 0 to 1099511627776, .*"),
    ],
)
def test_samples_that_are_none_are_named(value: Any, reason: str) -> None:
    with pytest.raises(SampleError, match=f"samples of a table: .*{reason}"):
        audio_input().load(value, Path(), seed=0, train=False)


RATES = [None, "16 kHz", "", 2**31, -5, 0, 1, 999, 768_001, 16000.5, float("nan"), float("inf"), True, [16000], 10**400]


@pytest.mark.parametrize("rate", RATES)
def test_a_rate_that_no_sound_has_is_named(rate: Any) -> None:
    cell = {"array": [0.1] * 1000, "sampling_rate": rate}
    with pytest.raises(SampleError, match=r"samples of a table: has (the sampling_rate .* integer|no sampling_rate)"):
        audio_input().load(cell, Path(), seed=0, train=False)
    with pytest.raises(SampleError):
        audio_input().key(cell)


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("a.npy", {}),
        ("a.npz", {}),
        ("a.npz", {"sampling_rate": 8000}),
        ("a.wav", {}),
    ],
)
def test_a_note_says_that_array_files_have_no_rate(name: str, arrays: dict[str, int], tmp_path: Path) -> None:
    samples, path = tone(0.4, 8000), tmp_path / name
    if path.suffix == ".npy":
        np.save(path, samples)
    elif name == "a.npz":
        np.savez(path, array=samples, **arrays)
    elif path.suffix == ".wav":
        path.write_bytes(wav(samples, rate=8000))
    for split in ("train", "val"):
        rows = [{"audio": name, "label": kind} for kind in ("a", "b")]
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    options = ["encoder/audio=cnn", "task=[classification]", "task.classification.reads=audio", "data.batch_size=2"]
    data = build_data(compose(["data=files", f"data.root={tmp_path}", *options]))
    data.read(tmp_path / "run", training=True)
    found = [note for note in data.notes if "the sounds of audio are arrays without a rate" in note]
    assert len(found) == (name in ("a.npy", "a.npz") and not arrays)
    assert all("read as 16000 Hz (data.inputs.audio.sample_rate)" in note for note in found)


def test_samples_without_a_rate_are_named() -> None:
    with pytest.raises(SampleError, match="has no sampling_rate; give that of the array in Hz, such as 16000"):
        audio_input().load({"array": [0.1] * 1000}, Path(), seed=0, train=False)


@pytest.mark.parametrize("rate", [16000, 16000.0, "16000", np.int64(16000), np.float32(16000)])
def test_a_whole_rate_of_any_type_is_one(rate: Any) -> None:
    cell = {"array": [0.1] * 100, "sampling_rate": rate}
    assert len(loaded(audio_input(), cell)) == 100


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_of_very_many_samples_only_those_around_the_piece_are_resampled(
    channels: int, place: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.stack([tone(20.0, 8000)] * channels).astype(np.float32)
    reader = audio_input(sample_rate=16000, max_seconds=1.0)
    cell = {"array": samples, "sampling_rate": 8000}
    full = reader._waveform(cell, Path(), place)
    monkeypatch.setattr(audio, "_MAX_SAMPLES", 100_000)
    really = audio.resample
    lengths = []

    def counted(sound: Tensor, rate: int, sample_rate: int) -> Tensor:
        lengths.append(sound.shape[1])
        return really(sound, rate, sample_rate)

    monkeypatch.setattr(audio, "resample", counted)
    piece = reader._waveform(cell, Path(), place)
    assert lengths == [3 * 8000] and full is not None and piece is not None
    inner = slice(100, -100)  # the ends of what was cut out have no neighbours
    assert len(piece) == len(full) == 16000 and (piece - full)[inner].abs().max() < 1e-3


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"sample_rate": 0}, "sample_rate = 0 is not a rate in Hz; set it to 16000, say"),
        ({"max_seconds": 0.0}, "max_seconds = 0.0 leaves no sample; set it to 10, say"),
        ({"noise": -1.0}, "noise = -1.0 is below 0"),
        ({"time_mask": 1.0}, "time_mask = 1.0 is not a share below 1"),
        ({"freq_mask": -0.1}, "freq_mask = -0.1 is not a share below 1"),
    ],
)
def test_wrong_knobs_are_named(knob: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        audio_input(**knob)
