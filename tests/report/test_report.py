"""The page of a run: what a reader relies on finding in it, for any run folder."""

import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmtrain.report.report import write_report
from mmtrain.types import Caption, Captions, Confusion, Hit, ReportItem, Retrieval

OVERRIDES = ["encoder=vit", "task=[contrastive,classification]"]
SUMMARY: dict[str, Any] = {
    "status": "done",
    "mode": "fit",
    "command": "python train.py encoder=vit 'task=[contrastive,classification]'",
    "steps": 500,
    "epochs": 20,
    "best": {"metric": "val/contrastive/recall", "value": 0.31, "step": 400},
    "test": {
        "contrastive/text_to_image_R@10": {"value": 0.41, "chance": 0.0125},
        "classification/accuracy": {"value": 0.9, "chance": 0.6},
        "classification/loss": {"value": math.nan, "chance": None},
    },
    "samples_per_second": 410.2,
    "seconds": 301.2,
    "parameters": {"total": 3_959_465, "trainable": 774},
    "parts": [{"part": "encoder.image", "what": "ViT", "output": "(B, 65, 128)", "parameters": 1234, "trainable": 0}],
    "versions": {"mmtrain": "0.1.0", "torch": "2.14.1"},
    "git_commit": "abc123",
    "error": None,
    "data_notes": ["pets/train.csv: the column <i>alt</i> is not read"],
}
CAPTIONS = {"a": "a red cat", "b": '<script>alert("x")</script>', "c": "a blue dog"}


class Page(HTMLParser):
    """A page read back: its text, and every element with its attributes."""

    VOID = frozenset({"meta", "br", "wbr", "img", "link", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.pieces).split())


def _picture(id: str) -> Image.Image | None:
    return Image.new("RGB", (40, 30), {"a": "red", "b": "green"}[id]) if id in "ab" else None


def _fill(run_dir: Path, **changes: Any) -> None:
    run_dir.joinpath("summary.json").write_text(json.dumps(SUMMARY | changes))
    run_dir.joinpath("config.yaml").write_text("overrides:\n" + "".join(f"- {o}\n" for o in OVERRIDES) + "seed: 7\n")
    run_dir.joinpath("metrics.csv").write_text(
        "step,epoch,train/loss,val/loss,val/contrastive/recall,lr\n"
        "100,4,2.0,,,0.001\n200,8,nan,,,0.001\n200,8,,1.5,0.2,\n400,16,1.0,1.2,0.31,0.0005\n"
    )


def _write(run_dir: Path, *exhibits: ReportItem) -> str:
    return write_report(run_dir, exhibits=exhibits, picture=_picture, text=CAPTIONS.get).read_text(encoding="utf-8")


def test_the_page_holds_what_the_run_folder_holds(tmp_path: Path) -> None:
    _fill(tmp_path)
    page = Page(_write(tmp_path))
    for words in (
        "done",
        "ViT",
        "contrastive/text_to_image_R@10",
        "0.410",
        "32.80 ×",
        "+0.300",
        "nan",
        "val/contrastive/recall",
        "best, at step 400",
        "5 min 1 s",
        "3.96 M",
        "3,959,465",
        "(B, 65, 128)",
        "learning rate",
        "1 not finite",
        "seed: 7",
        SUMMARY["command"],
        "abc123",
        "2.14.1",
        "the column <i>alt</i> is not read",
    ):
        assert words in page.text, words
    assert [a["aria-label"] for tag, a in page.elements if tag == "svg" and "over steps" in str(a.get("aria-label"))]


def test_a_plan_stands_beside_what_was_measured(tmp_path: Path) -> None:
    _fill(tmp_path, peak_memory=300 * 2**20)
    assert "planned" not in Page(_write(tmp_path)).text
    plan = {
        "parameters": {"total": 3_959_465, "trainable": 774},
        "memory": {"weights": 2**20, "casts": 0, "activations": 2**28, "total": 257 * 2**20},
        "run": {"steps": 500, "samples_per_second": None, "seconds": None},
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    text = Page(_write(tmp_path)).text
    assert "257 MiB (weights 1.00 MiB, activations 256 MiB)300 MiB" in text
    assert "samples per second-410" in text


def test_the_page_needs_nothing_beside_it(tmp_path: Path) -> None:
    _fill(tmp_path)
    page = _write(tmp_path, Retrieval("text", "image", ["a"], [[Hit("a", 0.9, True), Hit("b", 0.1, False)]]))
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    elements = Page(page).elements
    assert not {"script", "link", "iframe", "base"} & {tag for tag, _ in elements}
    links = [v for _, a in elements for k, v in a.items() if k in ("src", "href", "xlink:href", "action")]
    assert links
    assert all(link is not None and link.startswith(("#", "data:image/")) for link in links)
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link and link.startswith("#")} <= set(ids)


def test_right_hits_are_marked_by_frame_sign_and_word(tmp_path: Path) -> None:
    page = _write(tmp_path, Retrieval("text", "image", ["a"], [[Hit("b", 0.91, False), Hit("a", 0.52, True)]]))
    cells = re.findall(r"<td(?: class=\"right\")?>.*?</td>", page, flags=re.DOTALL)
    wrong, right = cells
    assert 'class="right"' in right
    assert "✓" in right
    assert "correct," in right
    assert "0.52" in right
    assert 'aria-label="a red cat"' in right
    assert "right" not in wrong
    assert "✓" not in wrong
    assert "0.91" in wrong


def test_a_text_gallery_shows_captions_and_a_picture_query_the_picture(tmp_path: Path) -> None:
    page = Page(_write(tmp_path, Retrieval("image", "text", ["a"], [[Hit("c", 0.5, False), Hit("a", 0.4, True)]])))
    assert "a blue dog" in page.text
    assert [a["aria-label"] for tag, a in page.elements if tag == "svg" and "viewbox" in a] == ["a red cat"]
    assert sum(tag == "image" for tag, _ in page.elements) == 1


def test_a_row_without_picture_or_caption_is_shown_by_its_id(tmp_path: Path) -> None:
    page = Page(_write(tmp_path, Retrieval("text", "image", ["unknown"], [[Hit("c", math.nan, False)]])))
    assert "unknown" in page.text
    assert "nan" in page.text


def test_the_confusion_matrix_names_classes_and_counts(tmp_path: Path) -> None:
    page = Page(_write(tmp_path, Confusion("classification", ["cat", "<b>dog"], [[30, 10], [0, 1200]])))
    for words in ("classification", "cat", "<b>dog", "30", "1,200", "0.750", "1,230 of 1,240 correct"):
        assert words in page.text
    assert {"col", "row"} == {a["scope"] for tag, a in page.elements if tag == "th"}


def test_whatever_is_data_is_escaped(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    _fill(
        tmp_path,
        status="failed",
        error=bad,
        command=bad,
        git_commit=bad,
        versions={bad: bad},
        test={f"{bad}/accuracy": {"value": 1.0, "chance": None}},
        best={"metric": bad, "value": 1.0, "step": 1},
        parts=[{"part": bad, "what": bad, "output": bad, "parameters": 1, "trainable": 1}],
    )
    (tmp_path / "metrics.csv").write_text(f"step,epoch,val/{bad},{bad}\n1,0,1.0,2.0\n")
    (tmp_path / "config.yaml").write_text(f"overrides:\n- {bad}\nname: {bad}\n")
    exhibits = Retrieval("text", "image", ["b"], [[Hit("b", 0.5, True)]]), Confusion(bad, [bad], [[1]])
    page = _write(tmp_path, *exhibits, Retrieval(bad, "text", [bad], [[Hit("b", 0.5, True)]]))
    assert "<script" not in page
    assert CAPTIONS["b"] in Page(page).text


def test_an_empty_folder_still_makes_a_page(tmp_path: Path) -> None:
    text = Page(_write(tmp_path)).text
    assert "unfinished" in text
    assert "no summary.json" in text
    assert "no test metrics, no curves and no examples" in text


def test_the_command_is_known_from_the_configuration_alone(tmp_path: Path) -> None:
    _fill(tmp_path)
    (tmp_path / "summary.json").unlink()
    assert "python train.py encoder=vit 'task=[contrastive,classification]'" in Page(_write(tmp_path)).text


@pytest.mark.parametrize("missing", ["summary.json", "metrics.csv", "config.yaml"])
def test_any_file_may_be_missing(tmp_path: Path, missing: str) -> None:
    _fill(tmp_path)
    (tmp_path / missing).unlink()
    assert Page(_write(tmp_path)).text


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("stopped", "This run was stopped after 120 steps, before its end."),
        ("failed", "This run failed after 120 steps."),
    ],
)
def test_a_run_that_did_not_finish_says_so_and_what_is_missing(tmp_path: Path, status: str, message: str) -> None:
    _fill(tmp_path, status=status, steps=120, test={}, best=None, error="RuntimeError: loss is not finite")
    text = Page(_write(tmp_path)).text
    assert message in text
    assert "has no test metrics and no examples" in text
    assert "RuntimeError: loss is not finite" in text


def test_a_run_that_failed_before_it_knew_anything(tmp_path: Path) -> None:
    _fill(tmp_path, **{key: None for key in SUMMARY if key not in ("status", "mode")} | {"status": "failed"})
    assert "This run failed." in Page(_write(tmp_path)).text


def test_a_finished_run_carries_no_warning(tmp_path: Path) -> None:
    _fill(tmp_path)
    assert 'role="note"' not in _write(tmp_path)


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path: Path) -> None:
    old = _write(tmp_path)
    with pytest.raises(ZeroDivisionError):
        write_report(
            tmp_path,
            exhibits=[Retrieval("text", "image", ["a"], [[Hit("a", 0.5, True)]])],
            picture=lambda id: 1 / 0,  # type: ignore[arg-type, return-value]
            text=CAPTIONS.get,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old


def test_the_usual_page_is_light(tmp_path: Path) -> None:
    draw = random.Random(0)
    ids = [f"row{i}" for i in range(120)]
    pictures = {id: Image.frombytes("RGB", (64, 64), draw.randbytes(64 * 64 * 3)).resize((500, 400)) for id in ids}
    exhibits = [
        Retrieval(query, gallery, ids[:8], [[Hit(draw.choice(ids), 0.5, False) for _ in range(10)] for _ in range(8)])
        for query, gallery in (("text", "image"), ("image", "text"), ("image", "image"))
    ]
    _fill(tmp_path)
    path = write_report(tmp_path, exhibits=exhibits, picture=pictures.get, text=lambda id: "a caption " * 12)
    assert path.stat().st_size < 3_000_000


def test_sentences_stand_with_what_is_right(tmp_path: Path) -> None:
    _fill(tmp_path)
    rows = [Caption("a", "a red cat", ["a red cat"]), Caption("b", "<b>", ["a dog", "dog"]), Caption("c", "", ["x"])]
    page = Page(_write(tmp_path, Captions("caption", rows)))
    for words in ("Generated text", "✓ exact match: a red cat", "<b>a dog / dog", "(nothing)x"):
        assert words in page.text, words
