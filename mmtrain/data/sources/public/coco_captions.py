"""COCO Captions (1504.00325): five captions per image, with the split of 2017 or Karpathy's (1412.2306).

Karpathy's file is used if it exists: almost all published retrieval results are on its 5,000 test images. Its
`restval` (images of val2014 that are in neither its validation nor its test) is part of training, as in those papers.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

from mmtrain.data.sources.public.coco_pictures import CocoPictures
from mmtrain.data.sources.public.layout import Layout
from mmtrain.data.tables.tables import Tables

LOOKS = (
    "annotations/captions_train2017.json, annotations/captions_val2017.json, train2017/ and val2017/,"
    " or dataset_coco.json and the images of 2014 or 2017"
)
KARPATHY = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def coco_captions(*, root: str | Path) -> Tables:
    """The tables: id, image, caption (a list).

    Args:
        root: folder of the data set.

    Raises:
        ConfigError: if a file is missing or cannot be read.
    """
    layout = Layout(root, looks=LOOKS)
    karpathy = layout.find("dataset_coco.json", "annotations/dataset_coco.json")
    return _of_2017(layout) if karpathy is None else _of_karpathy(layout, karpathy)


def _of_2017(layout: Layout) -> Tables:
    files = {split: layout.need(f"annotations/captions_{split}2017.json") for split in ("train", "val")}
    rows: dict[str, list[dict[str, Any]]] = {}
    for split, file in files.items():
        folder = layout.inside(layout.need(f"{split}2017"))
        with layout.reading(file):
            content = layout.json(file)
            captions: dict[int, list[str]] = defaultdict(list)
            for annotation in content["annotations"]:
                captions[annotation["image_id"]].append(annotation["caption"].strip())
            rows[split] = [
                {"id": str(image["id"]), "image": f"{folder}/{image['file_name']}", "caption": captions[image["id"]]}
                for image in content["images"]
            ]
    return layout.tables(rows, files)


def _of_karpathy(layout: Layout, file: Path) -> Tables:
    pictures = CocoPictures(layout, folders=("train2014", "train2017", "val2014", "val2017"))
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    with layout.reading(file):
        for image in layout.json(file)["images"]:
            rows[KARPATHY[image["split"]]].append(
                {
                    "id": str(image["cocoid"]),
                    "image": pictures.path(image["cocoid"], image["filepath"]),
                    "caption": [sentence["raw"].strip() for sentence in image["sentences"]],
                }
            )
    return layout.tables(rows, dict.fromkeys(rows, file))
