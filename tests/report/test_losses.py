"""What `loss` is made of, as a run states it."""

import json
from pathlib import Path

from mmtrain.build import compose
from mmtrain.report.losses import describe_loss, loss_sentences
from mmtrain.report.report import write_report


def test_weights_and_smoothing_are_those_of_the_configuration() -> None:
    cfg = compose(["task=[contrastive,classification]", "task.classification.weight=0.25"])
    loss = describe_loss(cfg)
    assert loss == {
        "balance": "fixed",
        "tasks": {
            "contrastive": {"weight": 1.0, "label_smoothing": 0.0},
            "classification": {"weight": 0.25, "label_smoothing": 0.1},
        },
    }
    assert loss_sentences(loss) == [
        "loss = 1 * contrastive/loss + 0.25 * classification/loss",
        "classification/loss has label_smoothing=0.1 in training, validation and test",
    ]


def test_another_balance_counts_in_training_alone() -> None:
    cfg = compose(["task=[contrastive,classification]", "balance=pcgrad", "task.classification.label_smoothing=0"])
    (line,) = loss_sentences(describe_loss(cfg))
    assert line.endswith("; balance=pcgrad multiplies each weight in training, but not in validation and test")


def test_a_run_that_recorded_nothing_states_nothing() -> None:
    assert loss_sentences({}) == []


def test_the_page_states_it(tmp_path: Path) -> None:
    loss = {"balance": "fixed", "tasks": {"label": {"weight": 0.5, "label_smoothing": 0.1}}}
    (tmp_path / "summary.json").write_text(json.dumps({"status": "done", "loss": loss}))
    (tmp_path / "metrics.csv").write_text("step,epoch,train/loss\n1,0,2.0\n2,0,1.0\n")
    page = write_report(tmp_path, exhibits=[], picture=lambda id: None, text=lambda id: None).read_text()
    assert "loss = 0.5 * label/loss." in page and "label/loss has label_smoothing=0.1" in page
