"""MSRVTT-QA (10.1145/3123266.3123427): questions about the videos of MSR-VTT, each with a one-word answer."""

from pathlib import Path

from mmtrain.data.sources.public.layout import Layout
from mmtrain.data.sources.public.msr_vtt import category, video_folder
from mmtrain.data.tables.tables import Tables

LOOKS = "train_qa.json, val_qa.json, test_qa.json and the videos video0.mp4 ... in TrainValVideo/, TestVideo/"


def msrvtt_qa(*, root: str | Path) -> Tables:
    """The tables: id, video, question, answer, category.

    Args:
        root: folder of the data set.

    Raises:
        ConfigError: if a file is missing or cannot be read.
    """
    layout = Layout(root, looks=LOOKS)
    files = {split: layout.need(f"{split}_qa.json") for split in ("train", "val", "test")}
    folders = {split: video_folder(layout, split) for split in files}
    rows: dict[str, list[dict[str, str]]] = {}
    for split, file in files.items():
        with layout.reading(file):
            rows[split] = [
                {
                    "id": f"{split}-{question['id']}",
                    "video": f"{folders[split]}/video{question['video_id']}.mp4",
                    "question": question["question"],
                    "answer": question["answer"],
                    "category": category(question["category_id"]),
                }
                for question in layout.json(file)
            ]
    return layout.tables(rows, files)
