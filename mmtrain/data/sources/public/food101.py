"""Food-101 (10.1007/978-3-319-10599-4_29): 101,000 images of 101 dishes. It has no validation split."""

from pathlib import Path

from mmtrain.annotations import Fraction
from mmtrain.data.sources.public.layout import Layout, table_of
from mmtrain.data.tables.splits import Split
from mmtrain.data.tables.tables import Tables
from mmtrain.errors import ConfigError

LOOKS = "meta/train.txt, meta/test.txt and images/CLASS/NUMBER.jpg"


def food101(*, root: str | Path, val: Fraction) -> Tables:
    """The tables: id, image, label (the folder's name, such as apple_pie).

    Args:
        root: folder of the data set.
        val: fraction of the training images for validation; 0 for no validation split.

    Raises:
        ConfigError: if a file is missing.
    """
    if not 0 <= val < 1:
        raise ConfigError(
            f"data.source.val = {val} is not a fraction below 1\n    fix: set it to 0.05, for example, or to 0"
        )
    layout = Layout(root, looks=LOOKS)
    files = {split: layout.need(f"meta/{split}.txt") for split in ("train", "test")}
    layout.need("images")
    rows: dict[str, list[dict[str, str]]] = {}
    for split, file in files.items():
        with layout.reading(file):
            rows[split] = [_row(line.strip()) for line in layout.lines(file)]
    split_tables = layout.tables(rows, files)
    if val == 0 or "train" not in split_tables.splits:
        return split_tables
    share = Split(column=None, fractions={"train": 1 - val, "val": val}, group=None)
    parts = share.cut(table_of(rows["train"]), str(files["train"]))
    return Tables(
        splits={**parts, **{s: t for s, t in split_tables.splits.items() if s == "test"}},
        names={**split_tables.names, "val": str(files["train"])},
        folder=layout.root,
        files=layout.files,
    )


def _row(name: str) -> dict[str, str]:
    return {"id": name, "image": f"images/{name}.jpg", "label": name.partition("/")[0]}
