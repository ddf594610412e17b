"""The commands of docs/, each composed with a configuration that holds: what they name is there."""

import json
import os
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from mmtrain.build import compose
from mmtrain.cli.main import normalize_override
from mmtrain.config.compose import config_dir
from mmtrain.config.validate import faults_of
from tests.tiny import make_fetched_folders

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))


def commands(page: Path) -> list[list[str]]:
    """The arguments of every `python train.py` in an indented block; a line that ends with a backslash goes on."""
    text = os.path.expandvars(page.read_text(encoding="utf-8")).replace("\\\n", " ")
    lines = [line.strip() for line in re.findall(r"^    .*$", text, flags=re.MULTILINE)]
    return [shlex.split(line, comments=True)[2:] for line in lines if line.startswith("python train.py")]


def write_tables(page: Path, folder: Path) -> None:
    """DIR, and the rows that a page shows after the name of a table, often enough for a batch, with their films.

    A page that shows none is about tables with pictures, captions and labels.
    """
    (folder / "DIR").mkdir()
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"^    (\S+\.jsonl) +(\{.*\})$", text, flags=re.MULTILINE)
    if not shown:
        rows = "".join(f"a.png,a cat,{('cat', 'dog')[n % 2]}\n" for n in range(256))
        for name in ("train.csv", "rows.csv"):
            (folder / "DIR" / name).write_text(f"image,caption,label\n{rows}")
        (folder / "DIR" / "a.png").touch()
    for name, row in shown:
        (folder / name).parent.mkdir(exist_ok=True)
        with (folder / name).open("a", encoding="utf-8") as table:
            table.write(f"{row}\n" * 64)
        (folder / name).with_name(json.loads(row)["video"]).touch()


def write_split_files(arguments: list[str], folder: Path) -> None:
    """The files of `data.train=FILE`, `data.val=FILE`, `data.test=FILE`: COCO captions for .json, others as tables."""
    places = [word.partition("=")[2] for word in arguments if re.match(r"data\.(train|val|test)=", word)]
    for place in [folder / p for p in places if "data=files" in arguments]:
        place.parent.mkdir(parents=True, exist_ok=True)
        captions = [f"a cat {n}" for n in range(256)]
        table = pd.DataFrame({"image": "a.png", "caption": captions, "label": ["cat", "dog"] * 128})
        match place.suffix:
            case ".csv":
                table.to_csv(place, index=False)
            case ".jsonl":
                table.to_json(place, orient="records", lines=True)
            case ".parquet":
                table.to_parquet(place)
            case ".json":
                images = [{"id": n, "file_name": "a.png"} for n in range(256)]
                annotations = [{"image_id": n, "caption": caption} for n, caption in enumerate(captions)]
                place.write_text(json.dumps({"images": images, "annotations": annotations}))
        for base in (place.parent, place.parent.parent):
            (base / "a.png").touch()


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_every_command_is_a_right_configuration(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tables(page, tmp_path)
    make_fetched_folders(tmp_path / "cache", monkeypatch)
    monkeypatch.chdir(tmp_path)
    result = commands(page)
    assert result
    for arguments in result:
        write_split_files(arguments, tmp_path)
        overrides = [
            normalize_override(a)
            for a in arguments
            if a != "-m" and not a.startswith(("init_from=", "run_dir=outputs/"))
        ]
        faults = faults_of(config_dir(), None, overrides, multirun="-m" in arguments)
        assert faults == [], shlex.join(arguments)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_every_part_that_a_page_names_is_there(page: Path) -> None:
    """`fusion=NAME` and `encoder/MODALITY=NAME`, in every place."""
    text = page.read_text(encoding="utf-8")
    for group, names in re.findall(
        r"\b(fusion|encoder/\w+|modality_balance|balance)=([a-z_0-9]+(?:,[a-z_0-9]+)*)", text
    ):
        for name in names.split(","):
            assert (config_dir() / group / f"{name}.yaml").is_file(), f"{group}={name}"


def test_the_defaults_that_the_docs_list_are_those_of_the_configuration() -> None:
    cfg = compose(
        [
            "data=files",
            "data.root=DIR",
            "task=[classification,matching,multilabel,ranking,regression,vqa,generation,captioning]",
        ]
    )
    assert {name: task.weight for name, task in cfg.task.items() if task.weight != 1} == dict.fromkeys(
        ("classification", "matching", "multilabel", "ranking", "regression", "vqa"), 0.5
    )
    smoothed = {name for name, task in cfg.task.items() if task.get("label_smoothing") == 0.1}
    assert smoothed == {"classification", "generation", "captioning"}
    inputs = cfg.data.inputs
    assert (inputs.text.word_dropout, inputs.image.crop_scale, inputs.video.crop_scale) == (0.3, 0.6, 0.6)
    assert (cfg.trainer.gradient_clip_val, cfg.schedule.warmup_ratio, cfg.schedule.min_lr_ratio) == (1.0, 0.05, 0.0)
    table = (
        (ROOT / "docs" / "tasks.md")
        .read_text(encoding="utf-8")
        .partition("| default | off with |")[2]
        .partition("\n\n")[0]
    )
    overrides = re.findall(
        r"`(~?[\w.]+(?:=\S+)?(?: [\w.]+=\S+)*)` ?", "\n".join(re.findall(r"\|[^|]*\|$", table, re.M))
    )
    words = [word.replace("NAME", "classification") for one in overrides for word in one.split()]
    assert len(words) == 10 and faults_of(config_dir(), None, words, multirun=False) == []


def test_tables_of_options_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python scripts/write_options.py` writes them."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import write_options

    assert write_options.PAGE.read_text(encoding="utf-8") == write_options.page()
    for page in DOCS:
        text = page.read_text(encoding="utf-8")
        assert write_options.with_tables(text) == text, page.name


def test_the_page_of_rules_is_what_the_rules_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import write_compatibility

    assert write_compatibility.PAGE.read_text(encoding="utf-8") == write_compatibility.page()
