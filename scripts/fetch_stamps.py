"""Download the Tux Paint stamps: images with captions in ten languages, and recordings of the captions.

    python scripts/fetch_stamps.py [--language es] [--deb FILE] [--out DIR]
    python train.py data=stamps

One minute and 200 MB; 161 MB are downloaded: Debian's tuxpaint-stamps-default (GPL-2), unpacked, not installed.
Writes {train,val,test}.jsonl, images/ (PNG, square, on white) and audio/ (as recorded; some have a silent channel):

    {"id": "animals/birds/owl", "image": ..., "caption": "An owl.", "caption_fr": "Un hibou.", ...,
     "audio": that of --language, "audio_en": ..., "audio_fr": ..., ..., "label": "animals", "base": "an owl"}
"""

import io
import re
import shutil
import sys
from pathlib import Path

import resvg_py
from PIL import Image

from mmtrain.data.decoding.image_file import open_image
from mmtrain.data.sources.fetch import (
    Row,
    Tables,
    command_line,
    exit_status,
    plain,
    split_rows,
    unpacked_debs,
    watched,
    write_folder,
)
from mmtrain.errors import ConfigError

FORMAT = 1  # increase it when rows or images change, so that old folders are replaced
PACKAGE = "tuxpaint-stamps-default"
STAMPS = "usr/share/tuxpaint/stamps"
LANGUAGES = ("en", "fr", "ru", "ca", "ro", "bg", "es", "be", "el", "da")  # languages with recordings
LEFT_OUT = "symbols"  # letters, coins, flags: their captions have details that small images do not show
SIZE = 256  # pixels


def main() -> None:
    parser = command_line(__doc__, "stamps")
    parser.add_argument("--language", choices=LANGUAGES, default="fr", help="of the column audio (fr)")
    parser.add_argument("--deb", type=Path, metavar="FILE", help=f"a {PACKAGE}_*.deb , existing")
    arguments = parser.parse_args()
    parameters = {"format": FORMAT, "language": arguments.language}
    debs = [arguments.deb] if arguments.deb else []

    def fill(folder: Path, scratch: Path) -> Tables:
        return stamps(unpacked_debs([PACKAGE], debs, scratch) / STAMPS, folder, arguments.language)

    write_folder(arguments.out, parameters, fill)


def stamps(root: Path, folder: Path, language: str) -> Tables:
    """Copy the files of an unpacked package, and return the rows by split. No caption is in two splits."""
    texts = [path for path in sorted(root.rglob("*.txt")) if path.relative_to(root).parts[0] != LEFT_OUT]
    rows: list[Row] = []
    for text in watched(texts, "drawing"):
        drawing = next((text.with_suffix(end) for end in (".png", ".svg") if text.with_suffix(end).is_file()), None)
        if drawing is None:  # two presents have only a name and a sound
            continue
        stem = text.relative_to(root).with_suffix("").as_posix()
        image = folder / "images" / f"{stem}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        draw(drawing, image)
        rows.append(row_of(text, stem, folder, language))
    if not rows:
        raise ConfigError(f"the package has no stamps in {STAMPS}\n    fix: name a {PACKAGE}_*.deb, or omit --deb")
    return split_rows(rows, (f"stamps:{row['base']}" for row in rows))


def row_of(text: Path, stem: str, folder: Path, language: str) -> Row:
    captions = captions_of(text.read_text(encoding="utf-8"))
    speech: Row = {f"audio_{spoken}": recording(text, stem, folder, spoken) for spoken in LANGUAGES}
    row: Row = {"id": stem, "image": f"images/{stem}.png", "caption": captions["en"]}
    row |= {f"caption_{other}": captions.get(other) for other in LANGUAGES if other != "en"}
    row |= {"audio": speech[f"audio_{language}"]} | speech
    return row | {"label": stem.split("/")[0], "base": plain(captions["en"])}


def captions_of(text: str) -> dict[str, str]:
    """Captions by language: the first line is English, the others have a language code."""
    english, *others = text.splitlines()
    results = [re.fullmatch(r"([\w@]+)\.utf8=(.*\S.*)", line) for line in others]
    return {match[1]: match[2].strip() for match in results if match} | {"en": english.strip()}


def recording(text: Path, stem: str, folder: Path, language: str) -> str | None:
    ending = "_desc.ogg" if language == "en" else f"_desc_{language}.ogg"
    source = text.with_name(text.stem + ending)
    if not source.is_file():
        return None
    name = f"audio/{language}/{stem}.ogg"
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return name


def draw(drawing: Path, target: Path) -> None:
    """Draw a square on white, because evaluation takes the centre of a long image."""
    content: Path | io.BytesIO = drawing
    if drawing.suffix == ".svg":
        # Without dpi a size in points is rejected. Letters on two drawings are omitted, because fonts differ.
        content = io.BytesIO(resvg_py.svg_to_bytes(svg_path=str(drawing), dpi=96, skip_system_fonts=True))
    picture = open_image(content).convert("RGBA")
    picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
    side = max(picture.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    square.convert("RGB").save(target)


if __name__ == "__main__":
    sys.exit(exit_status(main))
