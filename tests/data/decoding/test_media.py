"""Opening and probing: the contents of a file without decoding it, and errors of other files."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtrain.data.decoding.media import open_media, probe, probe_file, source_of
from mmtrain.data.decoding.mp4_boxes import num_listed_samples
from mmtrain.errors import SampleError
from tests.data.films import encoded_sound, tone, wav, write_film


def test_importing_the_readers_does_not_import_pyav() -> None:
    code = "import sys, mmtrain.data.inputs.audio, mmtrain.data.inputs.video; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0


def test_a_source_is_a_path_bytes_or_what_datasets_gives(tmp_path: Path) -> None:
    assert source_of("a/b.wav", tmp_path) == tmp_path / "a/b.wav"
    assert source_of(b"abc", tmp_path) == b"abc"
    assert source_of({"path": "b.wav", "bytes": None}, tmp_path) == tmp_path / "b.wav"
    assert source_of({"path": "b.wav", "bytes": b"abc"}, tmp_path) == b"abc"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_a_film_is_told_by_its_header(tmp_path: Path, name: str) -> None:
    result = probe(write_film(tmp_path / name, 50, codec="mpeg4" if name == "a.avi" else "libx264"))
    assert result.seconds == pytest.approx(2.0, abs=0.01) and result.frames == 50 and result.fps == pytest.approx(25)
    assert result.exact == (name in ("a.mp4", "a.avi"))
    assert (result.height, result.width, result.has_audio) == (48, 64, False)


def test_a_film_with_sound_has_sound(tmp_path: Path) -> None:
    result = probe(write_film(tmp_path / "a.mp4", 25, sound=tone(3.0, 16000)))
    assert result.has_audio and result.frames == 25 and result.seconds == pytest.approx(1.0, abs=0.01)


def test_a_film_without_a_duration_is_counted(tmp_path: Path) -> None:
    bare = probe(write_film(tmp_path / "a.h264", 50, kind="h264"))
    assert bare.exact and bare.frames == 50 and bare.seconds == pytest.approx(2.0)
    live = probe(write_film(tmp_path / "a.mkv", 50, options={"live": "1"}))
    assert live.exact and live.frames == 50 and live.seconds == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("name", ["a.mp4", "a.h264"])  # by its header, and counted
def test_what_was_probed_is_read_from_its_beginning(tmp_path: Path, name: str) -> None:
    path = write_film(tmp_path / name, 30, kind="h264" if name == "a.h264" else "mp4")
    with probe_file(path) as (container, result):
        assert result == probe(path) and result.frames == 30
        assert sum(1 for _ in container.decode(video=0)) == 30


def test_pictures_are_films_of_one_frame_and_animations_of_several() -> None:
    frames = [Image.new("RGB", (16, 8), (20 * n, 0, 0)) for n in range(4)]
    for kind, more, count in (("PNG", [], 1), ("GIF", [], 1), ("GIF", frames[1:], 4)):
        file = io.BytesIO()
        frames[0].save(file, kind, save_all=bool(more), append_images=more, duration=100)
        result = probe(file.getvalue())
        assert (result.frames, result.exact, result.height, result.width) == (count, True, 8, 16)
        assert result.seconds > 0


def test_a_sound_has_no_frames() -> None:
    result = probe(wav(tone(1.5, 8000), rate=8000))
    assert result.seconds == pytest.approx(1.5) and result.frames == 0 and result.has_audio
    assert probe(encoded_sound(tone(1.5, 16000), 16000, "flac", "flac")).seconds == pytest.approx(1.5)


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is a text\n" * 40, b"1\n00:00:01,000 --> 00:00:02,000\nhi\n\n" * 5]
)
def test_what_is_neither_sound_nor_film_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(content)
    for source, name in ((file, "a.wav"), (content, f"{len(content)} bytes")):
        with pytest.raises(SampleError, match=f"{name}: is (empty|.*neither sound nor film)"):
            probe(source)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("no.wav", "", "a\0b.wav"):
        with pytest.raises(SampleError, match="there is no such file"):
            probe(tmp_path / name)


def test_a_number_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"^float: neither a path nor the bytes of a file"):
        source_of(1.5, tmp_path)


def test_a_name_with_a_colon_is_a_file_and_not_a_protocol(tmp_path: Path) -> None:
    (tmp_path / "12:30.wav").write_bytes(wav(tone(0.5, 8000), rate=8000))
    assert probe(tmp_path / "12:30.wav").seconds == pytest.approx(0.5)


def test_a_picture_that_is_too_large_is_not_decoded() -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(file, "PNG")
    assert probe(file.getvalue(), max_pixels=20000).width == 200
    with pytest.raises(SampleError, match="200 x 100 pixels are more than max_pixels = 19999"):
        probe(file.getvalue(), max_pixels=19999)
    file = io.BytesIO()
    Image.fromarray(np.zeros((1000, 2000, 3), np.uint8)).save(file, "PNG")
    with pytest.raises(SampleError, match="far more than max_pixels = 100"):
        probe(file.getvalue(), max_pixels=100)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{}'\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
    ' mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1000" width="64" height="48">'
    "<BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>"
)


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "mpd"])
@pytest.mark.parametrize("named", ["a.ts", "../out/a.ts", "{out}/a.ts", "file://{out}/a.ts", "link.ts"])
def test_a_playlist_opens_nothing(
    kind: str, named: str, film_elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = film_elsewhere.parent
    monkeypatch.chdir(out)  # as a cell of bytes, it would start from where the program runs
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "out").symlink_to(out)
    (root / "link.ts").symlink_to(film_elsewhere)
    text = {"m3u8": PLAYLIST, "ffconcat": CONCAT, "mpd": DASH}[kind].format(named.format(out=out))
    (root / f"a.{kind}").write_text(text)
    (root / "b.mp4").write_text(text)
    for source in (root / f"a.{kind}", root / "b.mp4", text.encode()):
        with pytest.raises(SampleError, match="is damaged, cut short, or neither sound nor film"):
            probe(source)


@pytest.fixture(scope="module")
def film_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("out") / "a.ts", 30)


@pytest.mark.parametrize("name", ["a%d.png", "a%03d.png", "a%*.png"])
def test_a_name_is_no_pattern_of_other_names(name: str, tmp_path: Path) -> None:
    """FFmpeg reads a1.png, a2.png ... in place of a%d.png; these could be links out of the folder."""
    for other in ("a1.png", "a001.png", "ab.png"):
        Image.new("RGB", (32, 16)).save(tmp_path / other)
    Image.new("RGB", (16, 8)).save(tmp_path / name)
    assert (probe(tmp_path / name).width, probe(tmp_path / name).frames) == (16, 1)


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def listed(kind: bytes, count: int) -> bytes:
    """A box that lists samples, without them."""
    return box(kind, bytes(4), *([] if kind == b"trun" else [struct.pack(">I", 1)]), struct.pack(">I", count))


def mp4(samples: bytes) -> bytes:
    return box(b"ftyp", b"isom") + box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", samples)))))


MANY = 50_000_000
BOMBS = {
    "sizes": mp4(listed(b"stsz", MANY)),
    "compact sizes": mp4(listed(b"stz2", MANY)),
    "two tracks": mp4(listed(b"stsz", 60) + listed(b"stsz", 60)),
    "a fragment": box(b"ftyp", b"isom") + box(b"moof", box(b"traf", listed(b"trun", MANY))),
    "behind others": box(b"wide") + box(b"free", bytes(9)) + mp4(listed(b"stsz", MANY)),
    "in a free box": box(b"free", mp4(listed(b"stsz", MANY))),
    "of 64 bits": struct.pack(">I4sQ", 1, b"moov", 16 + 20) + listed(b"stsz", MANY),
    "without an end": struct.pack(">I4s", 0, b"moov") + listed(b"stsz", MANY),
    "longer than the file": struct.pack(">I4s", 2**31, b"moov") + listed(b"stsz", MANY),
    "compressed": box(b"moov", box(b"cmov", box(b"cmvd", struct.pack(">I", 20), zlib.compress(listed(b"stsz", MANY))))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_header_that_lists_more_samples_than_the_file_has_bytes_is_not_believed(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(BOMBS[name])
    for source in (BOMBS[name], tmp_path / "a.mp4"):
        with pytest.raises(SampleError, match=r"is damaged: its header lists \d+ samples, but it has \d+ bytes"):
            probe(source)


def test_a_header_that_unpacks_to_hundreds_of_megabytes_is_not_unpacked() -> None:
    packed = zlib.compress(bytes(10**7))
    content = box(b"moov", box(b"cmov", box(b"cmvd", struct.pack(">I", 1 << 31), packed)))
    with pytest.raises(SampleError, match="is damaged: a header of 2147483648 bytes when unpacked"):
        probe(content)
    assert num_listed_samples(box(b"moov", box(b"cmov", box(b"cmvd", struct.pack(">I", 100), packed)))) == 0


def test_a_header_of_millions_of_boxes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmtrain.data.decoding.mp4_boxes._MAX_BOXES", 1000)
    with pytest.raises(ValueError, match="a header of more than 1000 boxes"):
        num_listed_samples(box(b"free") * 1001)


@pytest.mark.parametrize("kind", ["mp4", "mov", "matroska", "avi", "mpegts"])
def test_the_samples_of_a_film_are_counted(kind: str, tmp_path: Path) -> None:
    codec = "mpeg4" if kind == "avi" else "libx264"
    path = write_film(tmp_path / "a", 50, kind=kind, codec=codec, sound=tone(1.0, 16000))
    count = num_listed_samples(path)
    assert count == num_listed_samples(path.read_bytes()) == (50 + 17 if kind in ("mp4", "mov") else 0)
    cut = path.read_bytes()[:100]
    assert num_listed_samples(cut) in (0, count)


@pytest.mark.parametrize("movflags", ["frag_keyframe+empty_moov", "faststart"])
def test_other_forms_of_mp4_are_read(movflags: str, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", 50, options={"movflags": movflags})
    assert num_listed_samples(path) == 50 and probe(path).seconds == pytest.approx(2.0, abs=0.1)


def test_a_cover_that_would_fill_the_memory_is_not_decoded_for_the_sound(tmp_path: Path) -> None:
    """Nor is a film whose sound alone is read."""
    path = write_film(tmp_path / "a.mp4", 5, sound=tone(0.2, 16000))
    with open_media(path) as container:
        assert container.options["max_pixels"] == str(2 * 10**8 + 65536)
