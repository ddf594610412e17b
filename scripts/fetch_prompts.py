"""Download the Asterisk prompts: recordings of a telephone system with transcripts, in English, Spanish and French.

    python scripts/fetch_prompts.py [--languages en fr] [--deb FILE ...] [--out DIR]
    python train.py data=prompts task=[contrastive] task.contrastive.modalities=[audio,text]

Half a minute; 60 MB are downloaded, 80 kept: Debian's asterisk-core-sounds-{en,es,fr} (transcripts) and -wav (8 kHz,
mono, one speaker a language; CC BY-SA 3.0), unpacked, not installed. Writes {train,val,test}.jsonl and audio/:

    {"id": "en/agent-loginok", "audio": "audio/en/agent-loginok.wav", "caption": "Agent logged in.", "language": "en"}
"""

import gzip
import re
import shutil
import sys
from pathlib import Path

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

FORMAT = 1  # increase it when the rows change, so that old folders are replaced
LANGUAGES = ("en", "es", "fr")
PACKAGE = "asterisk-core-sounds-{language}"


def main() -> None:
    parser = command_line(__doc__, "prompts")
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=LANGUAGES, help="all by default")
    parser.add_argument("--deb", type=Path, nargs="+", default=[], metavar="FILE", help="existing packages")
    arguments = parser.parse_args()
    languages = [language for language in LANGUAGES if language in arguments.languages]
    packages = [PACKAGE.format(language=language) + end for language in languages for end in ("", "-wav")]

    def fill(folder: Path, scratch: Path) -> Tables:
        return prompts(unpacked_debs(packages, arguments.deb, scratch), folder, languages)

    write_folder(arguments.out, {"format": FORMAT, "languages": languages}, fill)


def prompts(tree: Path, folder: Path, languages: list[str]) -> Tables:
    """Copy the recordings with a transcript, and return the rows by split. No text is in two splits."""
    rows: list[Row] = []
    for language in languages:
        package = PACKAGE.format(language=language)
        listed = tree / "usr/share/doc" / package / f"core-sounds-{language}.txt.gz"
        voices = sorted((tree / "usr/share/asterisk/sounds").glob(f"{language}_*"))
        if not listed.is_file() or not voices:
            raise ConfigError(
                f"{package} and {package}-wav are not available\n    fix: name both with --deb, or remove a language"
            )
        with gzip.open(listed, "rt", encoding="utf-8") as file:
            texts = transcripts(file.read())
        for name, text in watched(list(texts.items()), f"copying {language}"):
            recording = voices[0] / f"{name}.wav"
            if recording.is_file():
                target = f"audio/{language}/{name}.wav"
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(recording, folder / target)
                rows.append({"id": f"{language}/{name}", "audio": target, "caption": text, "language": language})
    return split_rows(rows, (f"prompts:{plain(str(row['caption']))}" for row in rows))


def transcripts(text: str) -> dict[str, str]:
    """Transcripts by name. If two lines have one name, the first is used: the Spanish 0 is also called ten."""
    results: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, said = line.partition(":")
        said = spoken(said)
        if colon and said and not line.startswith(";"):
            results.setdefault(name.strip(), said)
    return results


def spoken(said: str) -> str:
    """A transcript without the notes at its end. Tones and silence have only such notes.

    >>> spoken("dollar [$]"), spoken("(10 seconds of silence)"), spoken("Sus saludos [temporales] estan en uso")
    ('dollar', '', 'Sus saludos temporales estan en uso')
    """
    said = re.sub(r"(\[[^\]]*\]|<[^>]*>|\([^()]*(\([^()]*\))?[^()]*\))\s*$", "", said.strip())
    return " ".join(said.translate({ord("["): None, ord("]"): None}).split())


if __name__ == "__main__":
    sys.exit(exit_status(main))
