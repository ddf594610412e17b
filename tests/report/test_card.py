"""The card of a model: every number is one of the run, and what was not tested is listed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from mmtrain.report.card import WEIGHTS, DataFacts, write_card
from mmtrain.report.robustness import corruption_tables, group_tables

FACTS = DataFacts(
    name="pets",
    license="CC BY 4.0",
    languages=["en"],
    reads=["image", "text"],
    rows={"train": 1200, "test": 90},
    filled={"train": {"image": 1200, "text": 1100}, "test": {"image": 90, "text": 80}},
)
SUMMARY: dict[str, Any] = {
    "status": "done",
    "mode": "fit",
    "command": "python train.py data=files",
    "test": {
        "label/accuracy": {"value": 0.75, "chance": 0.25},
        "label/calibration_error": {"value": 0.0625, "chance": None},
        "label/text_only/accuracy": {"value": 0.5, "chance": 0.25},
        "label/image_only/accuracy": {"value": 0.625, "chance": 0.25},
    },
    "corruptions": [
        {
            "corruption": "typos",
            "modality": "text",
            "severity": severity,
            "metric": "label/accuracy",
            "value": value,
            "clean": 0.75,
            "chance": 0.25,
        }
        for severity, value in ((1, 0.7), (5, None))
    ],
    "groups": [
        {"group": "cat", "rows": 60, "metric": "label/accuracy", "value": 0.8, "chance": 0.3},
        {"group": "dog|fox", "rows": 30, "metric": "label/accuracy", "value": 0.6, "chance": 0.3},
    ],
    "best": {"metric": "val/label/accuracy", "value": 0.7, "step": 40, "mode": "max"},
    "steps": 60,
    "epochs": 2,
    "seconds": 12.4,
    "loss": {"balance": "fixed", "tasks": {"label": {"weight": 0.5, "label_smoothing": 0.1}}},
    "peak_memory": 1000000,
    "parts": [{"part": "encoder.text", "what": "Bert", "output": "", "parameters": 2000, "trainable": 0}],
    "versions": {"mmtrain": "1.0", "torch": "2.14.1"},
    "git_commit": None,
    "data_notes": ["pets/train.csv: the column alt is not read"],
}
CONFIG = {
    "encoder": {"text": {"pretrained": "/somewhere/minilm"}},
    "task": {"label": {"_target_": "mmtrain.tasks.classification.Classification"}},
    "data": {"batch_size": 32},
    "trainer": {"precision": 32},
    "seed": 4,
}


def card(folder: Path, facts: DataFacts = FACTS, **changed: Any) -> str:
    (folder / "summary.json").write_text(json.dumps(SUMMARY | changed))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return write_card(folder, facts).read_text()


def test_it_says_what_the_run_and_the_data_say(tmp_path: Path) -> None:
    text = card(tmp_path)
    for line in (
        "- licence: CC BY 4.0",
        "- languages: en",
        "| train | 1,200 | 1,200 | 1,100 |",
        "| encoder.text | Bert | minilm | 2,000 | 0 |",
        "- best checkpoint: val/label/accuracy 0.700 at step 40",
        "| label/accuracy | 0.750 | 0.250 |",
        "| label/calibration_error | 0.062 | - |",
        "| text | 0.500 |",
        "| typos | text | 0.250 | 0.750 | 0.700 | - |",
        "label/accuracy, mean of the groups 0.700; worst: dog\\|fox",
        "| dog\\|fox | 30 | 0.600 | 0.300 |",
        "- 100 of the 1,200 training rows have no text.",
    ):
        assert line in text.splitlines(), line
    assert any(line.startswith("- loss = 0.5") for line in text.splitlines())
    assert "Not tested" not in text and "/somewhere" not in text
    heads = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    assert heads[1:] == [
        *("Data", "Model", "Training", "Metrics", "Missing modalities", "Corruptions", "Groups", "Limits", "Use")
    ]


@pytest.mark.parametrize("kind", ["average", "current"])
def test_it_says_which_weights_are_evaluated(kind: str, tmp_path: Path) -> None:
    assert f"- evaluated weights: {WEIGHTS[kind]}" in card(tmp_path, evaluated_weights=kind).splitlines()
    assert "evaluated weights" not in card(tmp_path)  # of an older version


def test_notes_of_the_data_are_listed(tmp_path: Path) -> None:
    assert "- pets/train.csv: the column alt is not read" in card(tmp_path)


def test_rows_that_no_task_could_use_are_counted(tmp_path: Path) -> None:
    not_judged = [{"split": "test", "task": "label", "rows": 3, "of": 90}]
    text = card(tmp_path, FACTS._replace(usable=1150), not_judged=not_judged).splitlines()
    assert "- The model reads image, text, and was trained on 1,150 of 1,200 rows." in text
    assert "- The other training rows have no input or no target that a task can use." in text
    assert "- test: 3 of 90 rows have none of the inputs that label reads and were not evaluated." in text
    assert "- The model reads image, text, and was trained on 1,200 rows." in card(tmp_path).splitlines()


def test_what_was_not_looked_at_is_listed(tmp_path: Path) -> None:
    bare = FACTS._replace(license=None, languages=None, filled={"train": None, "test": None})
    text = card(tmp_path, bare, test={}, corruptions=[], groups=[])
    assert "- licence: not given" in text and "- languages: not given" in text
    for what in ("there is no test split", "corrupted inputs", "groups of rows", "missing modalities"):
        assert f"- Not tested: {what}." in text
    assert "- Not measured: calibration." in text
    assert "## Corruptions" not in text and "## Groups" not in text


def test_tables_of_corruptions_and_groups() -> None:
    (table,) = corruption_tables(SUMMARY["corruptions"], SUMMARY["test"])
    assert (table.severities, table.clean, table.chance) == ([1, 5], 0.75, 0.25)
    assert table.rows == [("typos", "text", [(0.7, 0.25), (None, 0.25)])]
    (groups,) = group_tables(SUMMARY["groups"])
    assert (groups.mean, groups.worst) == (pytest.approx(0.7), "dog|fox")


EVIL = "bar\r\n\n# Metrics\n\n| accuracy | 0.999 |\n<script>alert(1)</script> [a](https://a.b) `x` *y* &lt;"


def test_no_name_of_a_stranger_makes_markdown_of_its_own(tmp_path: Path) -> None:
    """An independent parser finds the headings, tables and links that the card has with harmless names."""

    def shape(name: str) -> tuple[list[tuple[str, str]], str]:
        facts = FACTS._replace(name=name, license=name, languages=[name], reads=["image", name])
        facts = facts._replace(filled={split: {**(counts or {}), name: 1} for split, counts in facts.filled.items()})
        changed: dict[str, Any] = {
            "command": f"python train.py a={name}",
            "groups": [{**SUMMARY["groups"][0], "group": name, "metric": f"{name}/accuracy"}],
            "corruptions": [{**row, "corruption": name, "metric": name} for row in SUMMARY["corruptions"]],
            "test": {f"{name}/accuracy": {"value": 0.5, "chance": None}, **SUMMARY["test"]},
            "best": {**SUMMARY["best"], "metric": name},
            "parts": [{**SUMMARY["parts"][0], "part": name, "what": name}],
            "versions": {"mmtrain": name, "torch": name},
            "git_commit": name,
        }
        text = card(tmp_path, facts, **changed)
        return [(t.type, t.tag) for t in MarkdownIt("commonmark").enable("table").parse(text)], text

    plain, _ = shape("bar")
    evil, text = shape(EVIL)
    assert evil == plain
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert (
        "<script" not in html
        and "<a " not in html
        and "<em>" not in html
        and html.count("<h2>") == html.count("</h2>") == 9
    )
    assert "alert(1)" in html, "it is shown, as text"


def test_the_name_of_the_folder_is_text(tmp_path: Path) -> None:
    folder = tmp_path / "a *b* <i>"
    folder.mkdir()
    assert card(folder).startswith("# a \\*b\\* \\<i\\>\n")
