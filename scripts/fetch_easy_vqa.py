"""Download easy-VQA: 5,000 small images of coloured shapes, with 48,248 questions and their answers.

    python scripts/fetch_easy_vqa.py [--wheel FILE] [--out DIR]
    python train.py data=easy_vqa task=[classification]

Some seconds and 25 MB on disk; 3 MB are downloaded: PyPI's easy-vqa (MIT), not installed. The test split is its own;
a tenth of its training pictures are for validation. Writes {train,val,test}.jsonl and images/:

    {"id": "train-7", "image": "images/train/0.png", "question": "what color is the shape?", "answer": "blue"}
"""

import hashlib
import json
import sys
import zipfile
from pathlib import Path

from mmtrain.data.sources.fetch import (
    Row,
    Tables,
    command_line,
    exit_status,
    split_rows,
    watched,
    wheel_of,
    write_folder,
)
from mmtrain.errors import ConfigError

FORMAT = 1  # increase it when the rows change, so that old folders are replaced
REQUIREMENT = "easy-vqa==1.0"
DATA = "easy_vqa/data"


def main() -> None:
    parser = command_line(__doc__, "easy_vqa")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="an existing easy_vqa-*.whl")
    arguments = parser.parse_args()

    def fill(folder: Path, scratch: Path) -> Tables:
        with zipfile.ZipFile(wheel_of(REQUIREMENT, arguments.wheel, scratch)) as wheel:
            return easy_vqa(wheel, folder)

    write_folder(arguments.out, {"format": FORMAT, "package": REQUIREMENT}, fill)


def easy_vqa(wheel: zipfile.ZipFile, folder: Path) -> Tables:
    """Copy the images of a wheel, and return the rows by split. Equal training images are in one split."""
    if f"{DATA}/train/questions.json" not in wheel.namelist():
        raise ConfigError(f"the wheel has no {DATA}/train/questions.json\n    fix: name an easy_vqa-*.whl")
    trained, tested = rows_of(wheel, folder, "train"), rows_of(wheel, folder, "test")
    contents = {
        image: hashlib.sha256((folder / image).read_bytes()).hexdigest() for image in {str(r["image"]) for r in trained}
    }
    keys = (f"easy_vqa:{contents[str(row['image'])]}" for row in trained)
    return {**split_rows(trained, keys, {"train": 0.9, "val": 0.1}), "test": tested}


def rows_of(wheel: zipfile.ZipFile, folder: Path, part: str) -> list[Row]:
    questions = json.loads(wheel.read(f"{DATA}/{part}/questions.json"))
    (folder / "images" / part).mkdir(parents=True)
    for number in watched(sorted({number for _, _, number in questions}), f"copying {part}"):
        content = wheel.read(f"{DATA}/{part}/images/{number}.png")
        (folder / "images" / part / f"{number}.png").write_bytes(content)
    return [
        {"id": f"{part}-{place}", "image": f"images/{part}/{number}.png", "question": question, "answer": answer}
        for place, (question, answer, number) in enumerate(questions)
    ]


if __name__ == "__main__":
    sys.exit(exit_status(main))
