"""Distillation: a real run as teacher; which rows count, what is not part of the student, errors."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmtrain.build import build_lit, build_model, compose, rebuild_from_run
from mmtrain.errors import ConfigError
from mmtrain.modes.run import fit
from mmtrain.tasks.distillation import Distillation
from mmtrain.training.checkpoint.load_run import load_run
from tests.batches import DIM, gradients, make_batch, make_model
from tests.test_configs import all_rows, read
from tests.tiny import TINY_MODEL, make_tables

SMALL = [o for o in TINY_MODEL if "max_epochs" not in o]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was trained for one epoch."""
    folder = tmp_path_factory.mktemp("teacher")
    tables = make_tables(folder / "data")
    parts = ["data=files", f"data.root={tables}", "task=[classification]", "trainer.max_epochs=1", "callbacks=[]"]
    fit(compose([*parts, *SMALL, f"run_dir={folder / 'run'}", "data.num_workers=0"]))
    return folder


def student_of(teacher: Path, tmp_path: Path, *overrides: str) -> Any:
    parts = ["data=files", f"data.root={teacher / 'data'}", "task=[classification,distillation]", *SMALL]
    arguments = [f"task.distillation.teacher={teacher / 'run'}", f"run_dir={tmp_path / 'student'}", *overrides]
    cfg = compose([*parts, *arguments])
    data = read(cfg)
    return build_lit(cfg, build_model(cfg, data)), data


def test_a_run_teaches_another(teacher: Path, tmp_path: Path) -> None:
    lit, data = student_of(teacher, tmp_path, "encoder.image.depth=2", "task.distillation.feature_weight=0.5")
    trained = load_run(teacher / "run", rebuild_from_run)
    batch = all_rows(data)
    predictions = lit.model.eval().view(batch).predictions("distillation")
    with torch.no_grad():
        assert torch.equal(predictions.teacher, trained.lit.model.view(batch).predictions("classification"))
    assert torch.equal(predictions.student, lit.model.view(batch).predictions("classification"))
    total, count = lit.model.named_tasks()["distillation"].loss(predictions, batch)
    assert count == sum(bool(a or b) for a, b in zip(batch.present["image"], batch.present["text"], strict=True))
    total.backward()
    assert all(p.grad is None for p in trained.lit.model.parameters())
    assert gradients(lit.model.encoders["image"])
    names = [name for name, _ in lit.named_parameters()]
    assert not [name for name in [*names, *lit.state_dict()] if "teacher" in name]
    assert sum(p.numel() for p in lit.model.tasks["distillation"].parameters()) > 0  # the projection of features


def test_the_student_comes_near_its_teacher(teacher: Path, tmp_path: Path) -> None:
    lit, data = student_of(teacher, tmp_path, "task.distillation.temperature=1")
    task, batch = lit.model.named_tasks()["distillation"], all_rows(data)
    optimizer = torch.optim.Adam(lit.model.parameters(), lr=0.003)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        total, count = task.loss(lit.model.view(batch).predictions("distillation"), batch)
        (total / count).backward()
        optimizer.step()
        losses.append(float(total / count))
    assert losses[-1] < 0.2 * losses[0]
    metric = task.metrics()
    task.update(metric, lit.model.eval().view(batch).predictions("distillation"), batch)
    values = metric.compute()
    assert 0.5 < values["agreement"] <= 1.0
    assert 0.0 < task.chance(values)["agreement"] <= 1.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.distillation.teacher=/nowhere"], "task.distillation.teacher=/nowhere: does not exist"),
        (["data.inputs.image.size=24"], "trained with data.inputs.image.size=16, but here it is 24"),
        (["data.inputs.text.vocab_size=50"], "trained with data.inputs.text.vocab_size=60, but here it is 50"),
        (
            ["task.distillation.distilled_task=genre"],
            "distilled_task = genre, but the classification tasks of the teacher are classification",
        ),
        (["task.distillation.temperature=0"], "set temperature above 0"),
        (["task.classification.input=image", "task.distillation.input=image"], "reads text, but the tasks of this run"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    teacher: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        student_of(teacher, tmp_path, *overrides)


def test_without_the_task_that_is_taught_it_says_which() -> None:
    model = make_model(tasks=("classification", "image_class"))
    options: dict[str, Any] = {"input": "fused", "temperature": 2.0, "feature_weight": 0.0, "weight": 1.0}
    task = Distillation(
        dims={"fused": DIM}, teacher=make_model(tasks=("classification",)), distilled_task="classification", **options
    )
    del model.tasks["classification"]
    with pytest.raises(ValueError, match=r"is missing here; set task=\[classification,distillation\]"):
        task(model.view(make_batch([1], [1], [0])))
