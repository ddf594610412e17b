"""MSR-VTT (10.1109/CVPR.2016.571): videos with twenty captions each, and one of twenty categories."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from mmtrain.data.sources.public.layout import Layout
from mmtrain.data.tables.tables import Tables

LOOKS = (
    "train_val_videodatainfo.json, test_videodatainfo.json and the videos video0.mp4 ... in TrainValVideo/, TestVideo/"
)
SPLITS = {"train": "train", "validate": "val", "test": "test"}
FOLDERS = {
    "train": ("TrainValVideo", "train-video", "videos/all", "videos", "all"),
    "test": ("TestVideo", "test-video", "videos/all", "videos", "all"),
}
CATEGORIES = (  # category.txt of the set, by number
    *("music", "people", "gaming", "sports/actions", "news/events/politics", "education", "tv shows"),
    *("movie/comedy", "animation", "vehicles/autos", "howto", "travel", "science/technology", "animals/pets"),
    *("kids/family", "documentary", "food/drink", "cooking", "beauty/fashion", "advertisement"),
)


def msr_vtt(*, root: str | Path) -> Tables:
    """The tables: id, video, caption (a list), label (the category).

    Args:
        root: folder of the data set.

    Raises:
        ConfigError: if a file is missing or cannot be read.
    """
    layout = Layout(root, looks=LOOKS)
    known, test = layout.need("train_val_videodatainfo.json"), layout.find("test_videodatainfo.json")
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    folders: dict[str, str] = {}
    for file in [known] if test is None else [known, test]:
        with layout.reading(file):
            content = layout.json(file)
            captions: dict[str, list[str]] = defaultdict(list)
            for sentence in content["sentences"]:
                captions[sentence["video_id"]].append(sentence["caption"])
            for video in content["videos"]:
                split, name = SPLITS[video["split"]], video["video_id"]
                if split not in folders:
                    folders[split] = video_folder(layout, split)
                rows[split].append(
                    {
                        "id": name,
                        "video": f"{folders[split]}/{name}.mp4",
                        "caption": captions[name],
                        "label": category(video["category"]),
                    }
                )
    return layout.tables(rows, {"train": known, "val": known, "test": test or known})


def video_folder(layout: Layout, split: str) -> str:
    """The folder of the videos of a split.

    Raises:
        ConfigError: if none of the usual folders exists.
    """
    return layout.inside(layout.need(*FOLDERS["test" if split == "test" else "train"]))


def category(number: int) -> str:
    """The name of a category."""
    return CATEGORIES[number] if 0 <= number < len(CATEGORIES) else str(number)
