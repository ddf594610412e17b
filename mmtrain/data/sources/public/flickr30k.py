"""Flickr30k (10.1162/tacl_a_00166): 31,783 images with five captions each, with Karpathy's split if it exists."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmtrain.data.sources.public.layout import Layout, table_of
from mmtrain.data.tables.folder_tables import cut
from mmtrain.data.tables.splits import Split
from mmtrain.data.tables.tables import Tables, no_rows
from mmtrain.errors import ConfigError

FOLDERS = ("flickr30k-images", "flickr30k_images", "images", "Images")
CAPTIONS = ("results_20130124.token", "results.csv", "flickr30k_images/results.csv", "captions.txt")
LOOKS = "flickr30k-images/ and dataset_flickr30k.json (Karpathy's split), or else results_20130124.token or results.csv"


def flickr30k(*, root: str | Path, split: Split) -> Tables:
    """The tables: id, image, caption (a list).

    Args:
        root: folder of the data set.
        split: how captions without Karpathy's split are split.

    Raises:
        ConfigError: if a file is missing or cannot be read.
    """
    layout = Layout(root, looks=LOOKS)
    karpathy = layout.find("dataset_flickr30k.json")
    captions = layout.need("dataset_flickr30k.json", *CAPTIONS) if karpathy is None else karpathy
    folder = _pictures(layout)
    if karpathy is not None:
        rows: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
        with layout.reading(karpathy):
            for image in layout.json(karpathy)["images"]:
                rows[image["split"]].append(_row(folder, image["filename"], [s["raw"] for s in image["sentences"]]))
        return layout.tables(rows, dict.fromkeys(rows, karpathy))
    by_picture: dict[str, list[str]] = defaultdict(list)
    with layout.reading(captions):
        for number, line in enumerate(layout.lines(captions), start=1):
            name, caption = _parted(line, captions, number)
            if name is not None:
                by_picture[name].append(caption)
    if not by_picture:
        raise no_rows(str(captions), "whole")
    table = table_of([_row(folder, name, result) for name, result in by_picture.items()])
    return replace(cut(table, str(captions), layout.root, split), files=layout.files)


def _pictures(layout: Layout) -> str:
    """The folder of images; the inner one of two folders with the same name, as Kaggle's archive unpacks."""
    folder = layout.need(*FOLDERS)
    inner = folder / folder.name
    return layout.inside(inner if inner.is_dir() else folder)


def _row(folder: str, name: str, captions: list[str]) -> dict[str, Any]:
    return {"id": Path(name).stem, "image": f"{folder}/{name}", "caption": [caption.strip() for caption in captions]}


def _parted(line: str, file: Path, number: int) -> tuple[str | None, str]:
    r"""The image and the caption of a line, `1.jpg#0<tab>Two men .` or `1.jpg| 0| Two men .`; no image for a header.

    >>> _parted("1.jpg#0\tTwo men .", Path(), 1), _parted("1.jpg| 0| Two | men .", Path(), 2)
    (('1.jpg', 'Two men .'), ('1.jpg', 'Two | men .'))
    """
    if "\t" in line:
        name, _, caption = line.partition("\t")
        return name.partition("#")[0].strip(), caption
    parts = line.split("|", maxsplit=2)
    if parts[0].strip() in ("image_name", "image"):
        return None, ""
    if len(parts) == 2 and parts[1].strip()[:1].isdigit():  # a line of Kaggle's csv without its second bar
        parts = [parts[0], *parts[1].strip().split(maxsplit=1)]
    if len(parts) != 3:
        raise ConfigError(
            f"{file}, line {number} is not an image, its number and a caption: {line[:60]}\n"
            "    fix: write it as NAME.jpg#0, a tab, and the caption"
        )
    return parts[0].strip(), parts[2].strip()
