"""`evaluate` gives the figures of a test and leaves everything else as it was."""

from pathlib import Path

import pytest
import torch

from mmtrain.training.evaluation import evaluate
from tests.batches import random_batch
from tests.steps import loader, make_lit, make_trainer
from tests.training.test_lit_module import Values, cut

TASKS = ("contrastive", "classification")
SUBSETS = [("image",), ("text",)]


@pytest.mark.parametrize("subsets", [[], SUBSETS])
def test_the_table_is_that_of_a_test(subsets: list[tuple[str, ...]], tmp_path: Path) -> None:
    lit, batch = make_lit(tasks=TASKS, test_subsets=subsets), random_batch(8, size=12)
    windows = [[part] for part in cut(batch, [6, 6])]
    trainer = make_trainer(tmp_path)
    trainer.test(lit, loader(windows), verbose=False)
    table = evaluate(lit.model, loader(windows), subsets, trainer=trainer)
    assert table == lit.table
    assert any("_only/" in name for name in table) == bool(subsets)


def test_nothing_else_changes(tmp_path: Path) -> None:
    """Neither what was logged, nor the table, the metrics or the weights of the run."""
    values = Values()
    lit, trainer = make_lit(tasks=TASKS, test_subsets=SUBSETS), make_trainer(tmp_path, logger=values)
    trainer.test(lit, loader([[random_batch(1)]]), verbose=False)
    rows, table, exhibits = list(values.rows), dict(lit.table), list(lit.report_items)
    weights = {name: value.clone() for name, value in lit.state_dict().items()}
    ranks = lit.evaluation.metrics["contrastive"].compute()["image_to_text_R@1"]
    other = evaluate(lit.model, loader([[random_batch(2, size=9)]]), trainer=trainer)
    assert other["classification/loss"] != table["classification/loss"]
    assert (values.rows, lit.table, lit.report_items) == (rows, table, exhibits)
    assert lit.state_dict().keys() == weights.keys()
    assert all(torch.equal(weights[name], value) for name, value in lit.state_dict().items())
    lit.evaluation.metrics["contrastive"]._computed = None
    assert lit.evaluation.metrics["contrastive"].compute()["image_to_text_R@1"] == ranks
    assert lit.trainer is trainer


def test_a_checkpoint_has_no_metrics() -> None:
    lit = make_lit(tasks=TASKS, test_subsets=SUBSETS)
    assert {name.split(".")[0] for name in lit.state_dict()} == {"model"}
