"""Download short dialogues by topic: turns, and the reply to them.

    python scripts/fetch_talk.py [--wheel FILE] [--out DIR]
    python train.py experiment=dialogue

Some seconds; 300 kB are downloaded: PyPI's chatterbot-corpus (BSD), not installed. Its English part is used. A dialogue
of n turns makes n - 1 rows, repeated dialogues are dropped, and all rows of dialogues with an equal beginning are in
one split. Writes {train,val,test}.jsonl:

    {"id": "ai-3-1", "turns": [{"speaker": "A", "text": "Are you sentient?"}], "reply": "Sort of.", "topic": "ai"}
"""

import json
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import yaml

from mmtrain.data.sources.fetch import (
    Row,
    Tables,
    command_line,
    exit_status,
    plain,
    split_rows,
    watched,
    wheel_of,
    write_folder,
)
from mmtrain.errors import ConfigError

FORMAT = 2  # increase it when the rows change, so that old folders are replaced
REQUIREMENT = "chatterbot-corpus==1.3.3"
DATA = "chatterbot_corpus/data/english/"
FEWEST = 40  # rows of a topic; rows of smaller topics have replies but no topic


def main() -> None:
    parser = command_line(__doc__, "talk")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="a chatterbot_corpus-*.whl (existing)")
    arguments = parser.parse_args()

    def fill(folder: Path, scratch: Path) -> Tables:
        with zipfile.ZipFile(wheel_of(REQUIREMENT, arguments.wheel, scratch)) as wheel:
            return talk(wheel)

    write_folder(arguments.out, {"format": FORMAT, "package": REQUIREMENT}, fill)


def talk(wheel: zipfile.ZipFile) -> Tables:
    """The rows of a wheel, by split."""
    files = sorted(name for name in wheel.namelist() if name.startswith(DATA) and name.endswith(".yml"))
    if not files:
        raise ConfigError(f"the wheel has no {DATA}*.yml\n    fix: name a chatterbot_corpus-*.whl")
    results: dict[str, Row] = {}
    for name in watched(files, "reading"):
        for row in rows_of(yaml.safe_load(wheel.read(name)), PurePosixPath(name).stem):
            results.setdefault(json.dumps([row["turns"], row["reply"]]), row)
    rows = list(results.values())
    counts = Counter(str(row["topic"]) for row in rows)
    for row in rows:
        row["topic"] = row["topic"] if counts[str(row["topic"])] >= FEWEST else None
    return split_rows(rows, (f"talk:{plain(row['turns'][0]['text'])}" for row in rows))


def rows_of(content: object, topic: str) -> Iterator[Row]:
    assert isinstance(content, dict)
    for number, dialogue in enumerate(content["conversations"]):
        if isinstance(dialogue, str):
            continue  # a line of the corpus without its list: no reply
        said = [" ".join(str(text).split()) for text in dialogue if text is not None]
        for length in range(1, len(said)):
            turns = [{"speaker": "AB"[place % 2], "text": text} for place, text in enumerate(said[:length])]
            yield {"id": f"{topic}-{number}-{length}", "turns": turns, "reply": said[length], "topic": topic}


if __name__ == "__main__":
    sys.exit(exit_status(main))
