"""Data sets as they are published: each is read with its least command, and gives the values that its files hold."""

import csv
import io
import json
import tarfile
import wave
from pathlib import Path
from typing import Any

import pytest

from mmtrain.build import build_data, compose
from mmtrain.data.module import DataModule
from mmtrain.data.tables.columns import cell_of
from tests.data.parts import draw_pictures

ROWS = 20
IMAGE = ["data.inputs.image.size=16"]
CLASS = ["task=[classification]"]


def read(folder: Path, *overrides: str) -> DataModule:
    cfg = compose([f"run_dir={folder}/run", "data.batch_size=2", *overrides])
    data = build_data(cfg)
    data.read(folder / "run", training=True)
    return data


def cells(data: DataModule, name: str) -> list[Any]:
    """The cells of an input or target, of all splits."""
    return [cell_of(row, data.columns[name]) for table in data.tables.values() for row in table]


def write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_sounds(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(folder / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(bytes(1600))


FIFTHS = "data.split.fractions={train:0.6,val:0.2,test:0.2}"
SOUND = [*CLASS, "task.classification.input=audio", "encoder/audio=cnn"]


def test_esc_50(tmp_path: Path) -> None:
    rows = [
        {"filename": f"{n % 5 + 1}-{n}-A-{n % 3}.wav", "fold": n % 5 + 1, "target": n % 3, "category": "abc"[n % 3]}
        for n in range(ROWS)
    ]
    write_sounds(tmp_path / "audio", [row["filename"] for row in rows])
    write_csv(tmp_path / "esc50.csv", rows)
    data = read(
        tmp_path,
        *f"data=files data.root={tmp_path} data.columns.audio=filename data.split.group=fold".split(),
        FIFTHS,
        *SOUND,
    )
    folds = {split: set(table["fold"]) for split, table in data.tables.items()}
    assert not folds["train"] & folds["val"] and not folds["train"] & folds["test"]
    assert sorted(cells(data, "audio")) == sorted(f"audio/{row['filename']}" for row in rows)
    assert data.known_targets["label"].names == ["a", "b", "c"]
    assert len(data.split("train").sample(0, seed=0, train=False).inputs["audio"]) == 1600


def test_urbansound8k(tmp_path: Path) -> None:
    rows = [
        {"slice_file_name": f"{n}-0-0.wav", "fold": n % 4 + 1, "classID": n % 2, "class": ("siren", "drill")[n % 2]}
        for n in range(ROWS)
    ]
    write_sounds(tmp_path, [f"audio/fold{row['fold']}/{row['slice_file_name']}" for row in rows])
    write_csv(tmp_path / "UrbanSound8K.csv", rows)
    data = read(tmp_path, *f"data=files data.root={tmp_path} data.columns.audio=slice_file_name".split(), *SOUND)
    wanted = {f"audio/fold{row['fold']}/{row['slice_file_name']}": row["class"] for row in rows}
    assert dict(zip(cells(data, "audio"), cells(data, "label"), strict=True)) == wanted


CHAT = ["task=[language_model]", "data.targets.chat.vocab_size=300", *IMAGE]


@pytest.mark.parametrize("form", ["llava", "sharegpt4v", "qwen", "qwen2", "openai"])
def test_dialogues_about_pictures(tmp_path: Path, form: str) -> None:
    names = [f"coco/train2017/{name}" for name in draw_pictures(tmp_path, ROWS)]
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for n, name in enumerate(names):
        (tmp_path / Path(name).name).rename(tmp_path / name)
        requested, answer = f"what is {n}?", ("null", "true", "7", "a cat")[n % 4]
        if form in ("llava", "sharegpt4v"):
            turns = [{"from": "human", "value": f"<image>\n{requested}"}, {"from": "gpt", "value": answer}]
            rows.append({"id": f"{n:012}", "image": name, "conversations": turns})
        elif form == "qwen":
            picture = f"Picture 1: <img>{name}</img>\n{requested}"
            turns = [{"from": "user", "value": picture}, {"from": "assistant", "value": answer}]
            rows.append({"id": f"identity_{n}", "conversations": turns})
        else:
            part = {"type": "image", "image": name}
            part = part if form == "qwen2" else {"type": "image_url", "image_url": {"url": name}}  # type: ignore[dict-item]
            parts = [part, {"type": "text", "text": requested}]
            rows.append({"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]})
    rows[3]["model"] = "gpt4v"  # some rows of ShareGPT4V have more keys
    table = tmp_path / "share-captioner_coco_lcs_sam_1246k_1107.json"
    table.write_text(json.dumps(rows))
    data = read(tmp_path, "data=files", f"data.root={table}", *CHAT)
    answers = {"coco/train2017/" + f"{n}.png": ("null", "true", "7", "a cat")[n % 4] for n in range(ROWS)}
    results = dict(zip(cells(data, "image"), cells(data, "chat"), strict=True))
    assert {name: turns[-1].get("value", turns[-1].get("content")) for name, turns in results.items()} == answers
    sample = data.split("train").sample(0, seed=0, train=False)
    assert set(sample.inputs) == {"image"} and set(sample.targets) == {"chat"}


def test_vqa_with_ten_answers(tmp_path: Path) -> None:
    names = draw_pictures(tmp_path, ROWS)
    for split in ("train", "val"):
        rows = [
            {
                "question_id": n,
                "image": names[n],
                "question": f"how many {n}?",
                "answers": [{"answer": "2" if k < 7 else "null", "answer_id": k + 1} for k in range(10)],
            }
            for n in range(ROWS)
        ]
        (tmp_path / f"{split}.json").write_text(json.dumps({"questions": rows}))
    data = read(tmp_path, "data=files", f"data.root={tmp_path}", "task=[vqa]", *IMAGE)
    assert data.known_targets["answer"].names == ["2", "null"]
    sample = data.split("train").sample(0, seed=0, train=False)
    assert sample.targets["answer"].tolist() == pytest.approx([1.0, 0.9])


def test_shards_of_img2dataset(tmp_path: Path) -> None:
    names = draw_pictures(tmp_path, 4)
    for number in range(2):
        with tarfile.open(tmp_path / f"{number:05}.tar", "w") as tar:
            for n, name in enumerate(names):
                key, facts = f"{number:05}{n:04}", {"caption": f"a box {n}", "url": "http://a", "status": "success"}
                members = {"jpg": (tmp_path / name).read_bytes(), "txt": f"a box {n}".encode()}
                for ending, content in (members | {"json": json.dumps(facts).encode()}).items():
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    places = [f"data.train={tmp_path}/00000.tar", f"data.val={tmp_path}/00001.tar"]
    data = read(tmp_path, "data=shards", *places, "task=[contrastive]", *IMAGE)
    assert {name: data.columns[name] for name in ("image", "text")} == {"image": "jpg", "text": "caption"}
    assert [row["caption"] for row in data.tables["train"]] == [f"a box {n}" for n in range(4)]
    assert set(data.split("train").sample(0, seed=0, train=False).inputs) == {"image", "text"}


def test_an_export_with_semicolons(tmp_path: Path) -> None:
    names = draw_pictures(tmp_path, ROWS)
    (tmp_path / "images").mkdir()
    rows = []
    for n, name in enumerate(names):
        (tmp_path / name).rename(tmp_path / "images" / name)
        rows.append({"image": name, " species ": "iris " if n % 2 else "rose", "width": f"{n},5", "height": n})
    write_csv(tmp_path / "flowers.csv", rows, delimiter=";")
    columns = ["data.columns.label=species", "data.columns.vector=[width,height]"]
    data = read(tmp_path, "data=files", f"data.root={tmp_path}", *columns, *CLASS, *IMAGE)
    assert data.known_targets["label"].names == ["iris", "rose"]
    wanted = {f"images/{n}.png": [f"{n}.5", str(n)] for n in range(ROWS)}
    assert dict(zip(cells(data, "image"), cells(data, "vector"), strict=True)) == wanted
    message = " ".join(data.notes)
    assert all(word in message for word in ("semicolons", "spaces around", "decimal commas", "found in folders below"))
