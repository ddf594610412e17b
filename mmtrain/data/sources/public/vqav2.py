"""VQAv2 (1612.00837): a question about an image of COCO, with the answers of ten annotators."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmtrain.data.sources.public.coco_pictures import CocoPictures
from mmtrain.data.sources.public.layout import Layout
from mmtrain.data.tables.tables import Tables
from mmtrain.errors import ConfigError

LOOKS = (
    "v2_OpenEnded_mscoco_train2014_questions.json and v2_mscoco_train2014_annotations.json, the same two of val2014,"
    " and train2014/ and val2014/ (or the images of 2017)"
)
TESTS = ("test2015", "test-dev2015")


def vqav2(*, root: str | Path, test: str | None) -> Tables:
    """The tables: id, image, question, answers (ten), question_type, answer_type.

    Args:
        root: folder of the data set.
        test: test2015 or test-dev2015, whose answers only the benchmark's server has; None for no test split.

    Raises:
        ConfigError: if a file is missing or cannot be read.
    """
    if test not in (None, *TESTS):
        raise ConfigError(f"data.source.test={test}: unknown\n    fix: set it to {' or '.join(TESTS)}, or to null")
    layout = Layout(root, looks=LOOKS)
    pictures = CocoPictures(layout, folders=("train2014", "train2017"))
    parts = {"train": "train2014", "val": "val2014"} | ({} if test is None else {"test": test})
    files = {split: _file(layout, f"v2_OpenEnded_mscoco_{part}_questions.json") for split, part in parts.items()}
    given = {s: _file(layout, f"v2_mscoco_{parts[s]}_annotations.json") for s in parts if s != "test"}
    rows: dict[str, list[dict[str, Any]]] = {}
    for split, file in files.items():
        answers: dict[int, Any] = {}
        if split in given:
            with layout.reading(given[split]):
                answers = {result["question_id"]: result for result in layout.json(given[split])["annotations"]}
        folder = "test2015" if split == "test" else parts[split]
        with layout.reading(file):
            rows[split] = [
                _row(question, pictures.path(question["image_id"], folder), answers.get(question["question_id"], {}))
                for question in layout.json(file)["questions"]
            ]
    return layout.tables(rows, files)


def _file(layout: Layout, name: str) -> Path:
    return layout.need(name, f"questions/{name}", f"annotations/{name}")


def _row(question: Mapping[str, Any], image: str, annotation: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(question["question_id"]),
        "image": image,
        "question": question["question"],
        "answers": [answer["answer"] for answer in annotation.get("answers", [])],
        "question_type": annotation.get("question_type"),
        "answer_type": annotation.get("answer_type"),
    }
