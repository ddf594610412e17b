"""Reading sound: the same samples as Python's own reader and scipy's resampler give, complete or a part."""

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from av import AudioFrame, AudioResampler
from scipy.io import wavfile  # type: ignore[import-untyped]
from scipy.signal import resample_poly  # type: ignore[import-untyped]

from mmtrain.data.decoding import audio as sound
from mmtrain.data.decoding.audio import mono, read_audio, read_piece, resample
from mmtrain.errors import SampleError
from tests.data.films import encoded_sound, tone, wav, write_film

KINDS = {
    "flac": ("flac", "flac", 16000),
    "mp3": ("mp3", "libmp3lame", 16000),
    "opus": ("ogg", "libopus", 48000),
    "mp4": ("mp4", "aac", 16000),
    "adts": ("adts", "aac", 16000),
    "aiff": ("aiff", "pcm_s16be", 16000),
    "mkv": ("matroska", "aac", 16000),
}


def by_wave(data: bytes) -> np.ndarray:
    """(L,) in -1..1."""
    with wave.open(io.BytesIO(data)) as reader:
        return np.frombuffer(reader.readframes(reader.getnframes()), "<i2") / 32768


def read(source: Path | bytes, rate: int = 16000, **piece: float) -> np.ndarray:
    result = read_audio(source, rate, **piece)
    assert result is not None and result.dtype == torch.float32 and result.ndim == 1
    return result.numpy()


def test_samples_at_their_own_rate_are_taken_as_they_are(tmp_path: Path) -> None:
    data = wav(tone(0.73, 16000), rate=16000)
    (tmp_path / "a.wav").write_bytes(data)
    assert np.allclose(read(data), by_wave(data), atol=1e-7)
    assert (read(tmp_path / "a.wav") == read(data)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_of_a_file_are_samples_or_refused(tmp_path: Path, dtype: str) -> None:
    samples = tone(0.3, 16000)
    samples = samples / np.abs(samples).max()
    for factor, is_read in ((0.5, True), (1.001, True), (1.5, False), (32768.0, False)):
        wavfile.write(tmp_path / "a.wav", 16000, (samples * factor).astype(dtype))
        if is_read:
            assert np.abs(read(tmp_path / "a.wav") - samples * factor).max() < 2e-3
        else:
            with pytest.raises(SampleError, match=r"beyond -1\.\.1\); divide them by their full scale"):
                read(tmp_path / "a.wav")


@pytest.mark.parametrize(("old", "new"), [(8000, 16000), (44100, 16000), (16000, 22050), (48000, 8000)])
def test_another_rate_is_as_scipy_resamples_it(old: int, new: int) -> None:
    data = wav(tone(1.0, old), rate=old)
    result, expected = read(data, new), resample_poly(by_wave(data), new, old)
    assert abs(len(result) - new) <= 1
    inner = slice(new // 20, -new // 20)
    assert np.abs(result[inner] - expected[: len(result)][inner]).max() < 2e-3


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_the_tone_that_went_in(kind: str) -> None:
    container, codec, rate = KINDS[kind]
    samples = tone(2.0, rate)
    result = read(encoded_sound(samples, rate, container, codec))
    assert 32000 - 2 <= len(result) <= 32000 + 2 * 1024  # padding of the last AAC frame, where the container keeps it
    expected = resample_poly(samples, 16000, rate)
    shift = 1024 if kind == "adts" else 0  # which has no place to tell the encoder's delay
    inner = slice(3000, 28000)
    assert np.abs(result[shift:][inner] - expected[inner]).max() < 0.05


@pytest.mark.parametrize("kind", [*KINDS, "wav"])
@pytest.mark.parametrize("rate", [16000, 22050])
def test_a_piece_is_the_same_samples_as_in_the_whole(kind: str, rate: int) -> None:
    if kind == "wav":
        data = wav(tone(2.0, 44100), rate=44100)
    else:
        container, codec, own = KINDS[kind]
        data = encoded_sound(tone(2.0, own), own, container, codec)
    full = read(data, rate)
    for start, seconds in ((0.0, 0.3), (0.1, 0.2), (0.777, 0.5), (1.2345, 0.25)):
        piece = read(data, rate, start=start, seconds=seconds)
        first = round(start * rate)
        assert len(piece) == round(seconds * rate)
        assert np.abs(piece - full[first : first + len(piece)]).max() < 1e-5
    assert np.abs(read(data, rate, start=1.5) - full[round(1.5 * rate) :]).max() < 1e-5


def test_a_piece_of_a_long_sound_does_not_read_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = wav(tone(120.0, 16000), rate=16000)
    taken = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            got = super().read(size)
            taken.append(len(got))
            return got

    monkeypatch.setattr("mmtrain.data.decoding.media.io.BytesIO", Counted)
    read(data, start=40.0, seconds=1.0)
    assert sum(taken) < len(data) / 10


def test_a_piece_at_the_end_is_shorter_down_to_nothing() -> None:
    data = wav(tone(1.0, 8000), rate=8000)
    assert len(read(data, start=0.75, seconds=1.0)) == 4000
    assert len(read(data, start=5.0, seconds=1.0)) == 0


def test_the_louder_channel_is_taken_where_one_is_silent() -> None:
    left, right = tone(0.5, 16000), tone(0.5, 16000, 660.0)
    silent = np.zeros_like(left)
    assert np.allclose(read(wav(silent, right, rate=16000)), right, atol=1e-4)
    assert np.allclose(read(wav(left, silent + 1e-4, rate=16000)), left, atol=1e-4)
    assert np.allclose(read(wav(left, right, rate=16000)), (left + right) / 2, atol=1e-4)
    assert np.allclose(read(wav(left, silent, right, rate=16000)), (left + right) / 2, atol=1e-4)
    assert np.allclose(read(wav(left, -left, rate=16000)), left, atol=1e-4)
    assert not read(wav(silent, silent, rate=16000)).any()


def test_a_mix_stays_within_one() -> None:
    assert mono(torch.tensor([[3.0, -3.0, 0.5]]), "").tolist() == [1.0, -1.0, 0.5]
    assert mono(torch.tensor([[3.0, -3.0, 0.5]] * 2), "").tolist() == [1.0, -1.0, 0.5]
    assert mono(torch.zeros(2, 0), "").shape == (0,)


@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_not_a_number_is_named(channels: int) -> None:
    sound = torch.zeros(channels, 5)
    sound[-1, 3] = float("nan")
    with pytest.raises(SampleError, match=r"a\.wav: has samples that are not finite"):
        mono(sound, "a.wav")


def test_samples_are_resampled_like_a_file() -> None:
    samples = torch.from_numpy(tone(0.5, 8000)).float()
    result = resample(torch.stack([samples, -samples]), 8000, 16000)
    assert result.shape == (2, 8000) and torch.equal(result[0], -result[1])
    assert np.abs(result[0].numpy() - resample_poly(samples.numpy(), 2, 1))[400:-400].max() < 2e-3


@pytest.mark.parametrize("length", [100, 500, 8000, 8001, 20011])
@pytest.mark.parametrize("rate", [8000, 11025, 16000])
def test_the_size_of_the_resamplers_frames_changes_no_sample(length: int, rate: int) -> None:
    samples = np.random.default_rng(length).uniform(-1, 1, (1, length)).astype(np.float32)
    frame = AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate = 8000
    plain = AudioResampler(format="fltp", rate=rate)
    expected = [out.to_ndarray() for given in (frame, None) for out in plain.resample(given) if out is not None]
    result = resample(torch.from_numpy(samples), 8000, rate)
    assert torch.equal(result, torch.from_numpy(np.concatenate(expected, axis=1)))


def test_a_film_without_sound_has_none(tmp_path: Path) -> None:
    assert read_audio(write_film(tmp_path / "a.mp4", 5), 16000) is None
    result = read(write_film(tmp_path / "b.mp4", 5, sound=tone(1.0, 16000)))
    assert np.abs(result[2000:14000] - tone(1.0, 16000)[2000:14000]).max() < 0.05


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "mp4", "adts", "aiff", "mkv"])
def test_a_file_that_is_cut_in_the_middle_is_found_out(kind: str) -> None:
    data = (
        wav(tone(2.0, 16000), rate=16000) if kind == "wav" else encoded_sound(tone(2.0, 16000), 16000, *KINDS[kind][:2])
    )
    with pytest.raises(SampleError, match=f"{len(data) // 2} bytes: is (cut short: .* s of 2.* s|damaged, cut short)"):
        read_audio(data[: len(data) // 2], 16000)


def test_a_short_wav_that_is_cut_is_found_out_and_a_whole_piece_before_the_cut_is_not() -> None:
    data = wav(tone(0.1, 16000), rate=16000)
    with pytest.raises(SampleError, match=r"cut short: 0\.05 s of 0\.10 s"):
        read_audio(data[: len(data) // 2], 16000)
    long = wav(tone(2.0, 16000), rate=16000)
    assert len(read(long[: len(long) // 2], start=0.2, seconds=0.5)) == 8000


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", b"\0\0\0\0"])
def test_a_wav_that_was_written_to_a_pipe_does_not_know_its_size(size: bytes) -> None:
    data = bytearray(wav(tone(1.0, 16000), rate=16000))
    data[4:8] = data[40:44] = size
    assert len(read(bytes(data))) == 16000


def test_a_sound_without_samples_is_named() -> None:
    with pytest.raises(SampleError, match="44 bytes: holds no samples"):
        read_audio(wav(np.zeros(0), rate=16000), 16000)


def flac_that_says(seconds: float, data: bytes) -> bytes:
    """With another number of samples in its head (RFC 9639, section 8.2), at 16 kHz."""
    changed = bytearray(data)
    changed[21] &= 0xF0
    changed[22:26] = round(seconds * 16000).to_bytes(4, "big")
    return bytes(changed)


def test_a_file_that_goes_on_far_behind_what_its_header_says_is_not_decoded_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encoded_sound(np.zeros(16000 * 300), 16000, "flac", "flac")
    decoded = [0]
    really = sound._Tally.until

    def counted(self: sound._Tally, *bounds: Any) -> Any:
        for frame in really(self, *bounds):
            decoded[0] += frame.samples
            yield frame

    monkeypatch.setattr(sound._Tally, "until", counted)
    with pytest.raises(SampleError, match=r"goes on behind 6\d s, although its header says 0\.50 s"):
        read_piece(flac_that_says(0.5, data), 16000, seconds=2.0, place=0.5)
    assert decoded[0] < 75 * 16000
    short = encoded_sound(tone(5.0, 16000), 16000, "flac", "flac")
    result = read_piece(flac_that_says(0.5, short), 16000, seconds=2.0, place=0.5)
    assert result is not None and np.abs(result.numpy() - tone(5.0, 16000)[24000:56000]).max() < 1e-3, (
        "a little is read"
    )


@pytest.mark.parametrize("rate", [2**31 - 1, 99_999_989, 3_000_001])
def test_a_rate_whose_filter_would_fill_the_memory_is_named(rate: int) -> None:
    data = bytearray(wav(tone(0.1, 8000), rate=8000))
    data[24:28], data[28:32] = rate.to_bytes(4, "little"), (2 * rate % 2**32).to_bytes(4, "little")
    with pytest.raises(SampleError, match=f"has a rate of {rate} Hz, more than 3000000"):
        read_piece(bytes(data), 16000, seconds=1.0, place=0.0)


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["mp4", "adts"])
def test_a_long_file_whose_header_guesses_is_not_held_in_memory(
    kind: str, place: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A film that is longer than its sound, and a stream without times; decoded as long ones are, and as short ones."""
    path = tmp_path / "a"
    if kind == "mp4":
        write_film(path, 100, kind="mp4", sound=tone(1.5, 16000))  # 4 s of pictures
    else:
        path.write_bytes(encoded_sound(tone(4.0, 16000), 16000, "adts", "aac"))
    expected = read_piece(path, 16000, seconds=1.0, place=place)
    monkeypatch.setattr(sound, "_AT_ONCE", 0.2)
    result = read_piece(path, 16000, seconds=1.0, place=place)
    assert expected is not None and result is not None and len(result) == len(expected) == 16000
    shift = 32  # of a start that is known in seconds, not in samples
    assert (
        min((result[shift:-shift] - expected[shift + n : 16000 - shift + n]).abs().max() for n in range(-shift, shift))
        < 1e-4
    )
