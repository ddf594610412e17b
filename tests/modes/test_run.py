"""Complete runs, in this process: the run folder, equal figures twice, stopping, resuming, testing, predicting."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping

from mmtrain.modes.run import early_stop
from mmtrain.training.checkpoint.load import load_checkpoint
from tests.runs import assert_same_run, rows_of, run_tiny, stop_and_resume, weights_of
from tests.tiny import ROWS, make_tables

STEPS_PER_EPOCH = -(-ROWS["train"] // 8)


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def calm(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    assert run_tiny(tables, folder, report=True) == 0
    return folder


def test_the_run_folder_is_whole(calm: Path) -> None:
    names = {path.name for path in calm.iterdir()}
    assert {"config.yaml", "metrics.csv", "summary.json", "report.html", "checkpoints", "tokenizer.json"} <= names
    assert {p.name for p in (calm / "checkpoints").iterdir()} == {"best.ckpt", "best.safetensors", "last.ckpt"}
    summary = json.loads((calm / "summary.json").read_text())
    assert summary["status"] == "done"
    assert summary["steps"] == 2 * STEPS_PER_EPOCH
    assert summary["epochs"] == 2
    assert summary["best"]["metric"] == "val/contrastive/recall"
    assert summary["test"]["classification/accuracy"]["chance"] > 0
    assert summary["samples_per_second"] > 0
    assert summary["loss"]["tasks"]["classification"] == {"weight": 0.5, "label_smoothing": 0.1}
    assert summary["peak_memory"] >= 0  # 0: in the room that earlier tests left; see test_memory.py
    assert summary["parameters"]["total"] == sum(part["parameters"] for part in summary["parts"])


def test_early_stopping_says_that_it_stopped() -> None:
    stopping = EarlyStopping(monitor="val/loss", patience=2)
    assert early_stop([stopping], 20) is None
    trainer: Any = SimpleNamespace(fast_dev_run=False, current_epoch=0, should_stop=False)
    trainer.strategy = SimpleNamespace(reduce_boolean_decision=lambda stops, all: stops)
    for epoch, loss in enumerate((1.5, 1.25, 1.3, 1.3)):
        trainer.current_epoch, trainer.callback_metrics = epoch, {"val/loss": torch.tensor(loss)}
        stopping._run_early_stopping_check(trainer)
    assert trainer.should_stop
    expected = "Monitored metric val/loss did not improve in the last 2 records. Best score: 1.250."
    assert early_stop([stopping], 20) == f"early stopping ended the training after epoch 4 of 20: {expected}"
    assert early_stop([stopping], -1) == f"early stopping ended the training after epoch 4: {expected}"


def test_each_step_has_one_row(calm: Path) -> None:
    rows = rows_of(calm)
    assert [int(row["step"]) for row in rows] == list(range(1, 2 * STEPS_PER_EPOCH + 1))
    assert all(row["train/loss"] for row in rows)
    assert [bool(row["val/loss"]) for row in rows].count(True) == 2
    assert rows[-1]["test/contrastive/recall"]
    assert [row["epoch"] for row in rows] == ["0"] * STEPS_PER_EPOCH + ["1"] * STEPS_PER_EPOCH


def test_one_seed_gives_the_same_run_twice_and_another_does_not(calm: Path, tables: Path, tmp_path: Path) -> None:
    run_tiny(tables, tmp_path / "again")
    assert_same_run(calm, tmp_path / "again")
    run_tiny(tables, tmp_path / "other", "seed=1")
    assert rows_of(calm) != rows_of(tmp_path / "other")


def test_a_run_says_in_how_many_steps_every_weight_was_0(
    calm: Path, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads((calm / "summary.json").read_text())["zero_steps"] == 0
    assert "zero_steps" not in rows_of(calm)[0], "balance=fixed has nothing to count"
    given = ["balance=mgda", "task=[contrastive,classification]", "trainer.max_epochs=1"]
    monkeypatch.setattr("mmtrain.balance.mgda.weigh", lambda gramian, *_, **__: torch.zeros_like(gramian.diagonal()))
    with pytest.warns(UserWarning, match="balance=MGDA: the weight of every task is 0 in step 1"):
        assert run_tiny(tables, tmp_path / "run", *given, report=True) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["zero_steps"] == STEPS_PER_EPOCH
    steps = [row for row in rows_of(tmp_path / "run") if row["train/loss"]]
    assert [float(row["zero_steps"]) for row in steps] == list(range(1, STEPS_PER_EPOCH + 1))
    message = f"the weight of every task was 0 in {STEPS_PER_EPOCH} of {STEPS_PER_EPOCH} steps"
    assert message in capsys.readouterr().out
    assert "steps so far in which the weight of every task" in (tmp_path / "run" / "report.html").read_text()


def test_workers_change_nothing(calm: Path, tables: Path, tmp_path: Path) -> None:
    run_tiny(tables, tmp_path / "run", "data.num_workers=2")
    assert_same_run(calm, tmp_path / "run")


STEPS = [1, 4, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, 2 * STEPS_PER_EPOCH]


@pytest.mark.parametrize("step", STEPS)
def test_stopped_and_resumed_is_as_never_stopped(step: int, calm: Path, tables: Path, tmp_path: Path) -> None:
    stop_and_resume(step, tables, tmp_path / "run")
    assert_same_run(calm, tmp_path / "run")


def test_stopped_and_resumed_with_steps_of_two_parts_and_without_averages(tables: Path, tmp_path: Path) -> None:
    options = ["callbacks=[]", "trainer.accumulate_grad_batches=2"]
    run_tiny(tables, tmp_path / "calm", *options)
    for step in (1, STEPS_PER_EPOCH + 1):
        stop_and_resume(step, tables, tmp_path / str(step), *options)
        assert_same_run(tmp_path / "calm", tmp_path / str(step))


def test_what_tasks_and_queues_keep_goes_on_too(tables: Path, tmp_path: Path) -> None:
    """What balances keep is in tests/balance/test_ranks.py."""
    options = ["task=[contrastive,masked_fusion,masked_image]", "task.contrastive.queue_size=16", "balance=gradvac"]
    run_tiny(tables, tmp_path / "calm", *options)
    stop_and_resume(STEPS_PER_EPOCH + 2, tables, tmp_path / "run", *options)
    assert_same_run(tmp_path / "calm", tmp_path / "run")


def test_other_data_is_noticed_unless_it_is_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables, folder = make_tables(tmp_path / "data"), tmp_path / "run"
    options = ["task=[classification]", "trainer.max_epochs=1"]
    assert run_tiny(tables, folder, *options) == 0
    (tables / "val.jsonl").write_text((tables / "test.jsonl").read_text())
    (tables / "test.jsonl").write_text((tables / "test.jsonl").read_text().replace("square", "bar"))
    again = [*options, "trainer.max_epochs=2", "resume=auto"]
    assert run_tiny(tables, folder, *again) == 2
    output = capsys.readouterr().err
    assert "rows of the validation split: 13 rows before, 15 rows now (best scores would be from two" in output
    assert "rows of the test split: the column" in output and "'resume_allow=[rows.val,rows.test]'" in output
    assert run_tiny(tables, folder, *options, "mode=test") == 0
    assert run_tiny(tables, folder, *again, "resume_allow=[rows]") == 0
    assert "15 rows now (best scores would be from two different splits); allowed by" in capsys.readouterr().out


def test_a_run_that_is_done_is_not_trained_again(calm: Path, tables: Path, tmp_path: Path) -> None:
    before = weights_of(calm)
    summary, checkpoint = json.loads((calm / "summary.json").read_text()), calm / "checkpoints" / "last.ckpt"
    clock = load_checkpoint(checkpoint)["clock"]
    assert run_tiny(tables, calm, "resume=auto") == 0
    after = weights_of(calm)
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = json.loads((calm / "summary.json").read_text())
    assert clock["steps"] == 2 * STEPS_PER_EPOCH and 0 < clock["training_seconds"] < clock["seconds"]
    assert again["samples_per_second"] == pytest.approx(
        44 * 2 / clock["training_seconds"], rel=1e-3
    )  # the clock goes on between the two
    assert again["seconds"] > clock["seconds"] and again["peak_memory"] == summary["peak_memory"]


def test_accumulation_gives_the_classification_of_the_whole_batch(tables: Path, tmp_path: Path) -> None:
    """Means are taken over the step: with no negatives in play, micro-batches change nothing but rounding."""
    plain = ["task=[classification]", "encoder.text.dropout=0", "fusion.dropout=0", "encoder.image.drop_path=0"]
    plain += ["task.classification.dropout=0", "encoder.image.dropout=0"]
    run_tiny(tables, tmp_path / "one", *plain)
    run_tiny(tables, tmp_path / "four", *plain, "trainer.accumulate_grad_batches=4")
    for one, four in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "four"), strict=True):
        assert float(one["train/loss"]) == pytest.approx(float(four["train/loss"]), rel=1e-4)


def test_mode_test_repeats_the_figures_of_fit(calm: Path, tables: Path) -> None:
    before = json.loads((calm / "summary.json").read_text())["test"]
    assert run_tiny(tables, calm, "mode=test") == 0
    assert json.loads((calm / "summary.json").read_text())["test"] == before


def test_mode_predict_writes_a_line_a_row(calm: Path, tables: Path) -> None:
    assert run_tiny(tables, calm, "mode=predict") == 0
    rows = [json.loads(line) for line in (calm / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"test-{n}" for n in range(ROWS["test"])]
    assert {row["classification"]["label"] for row in rows if "classification" in row} <= {"square", "bar", "frame"}
    assert "match" in rows[0]["matching"]
    assert "matching" not in rows[3]  # it has no caption
    assert rows[3]["not_predicted"]["matching"] == "missing: text"


def test_init_from_takes_what_fits_and_says_so(
    calm: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = calm / "checkpoints" / "best.ckpt"
    assert run_tiny(tables, tmp_path / "run", f"init_from={checkpoint}", "fusion=concat", "trainer.max_steps=1") == 0
    output = capsys.readouterr().out
    assert "model.encoders" in output or "encoders.image" in output
    assert "fusion" in output


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["resume=auto", "encoder.image.depth=2"], "a checkpoint of another model"),
        (["resume=auto", "seed=5"], "seed was 0 and is 5 now"),
        (["resume=auto", "data.batch_size=4"], "data.batch_size was 8 and is 4 now"),
        ([], "already contains a run"),
    ],
)
def test_nothing_is_written_over(
    overrides: list[str], message: str, calm: Path, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in calm.rglob("*") if p.is_file()}
    assert run_tiny(tables, calm, *overrides) == 2
    assert message in capsys.readouterr().err
    assert {p: p.read_bytes() for p in calm.rglob("*") if p.is_file()} == before


def test_a_run_that_came_to_no_whole_checkpoint_begins_again_when_it_is_asked_to_go_on(
    calm: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"half")
    assert run_tiny(tables, folder) == 2
    assert "resume it with resume=auto" in capsys.readouterr().err
    assert run_tiny(tables, folder, "resume=auto") == 0
    output = capsys.readouterr().out
    assert f"skipped: {folder}/checkpoints/last.ckpt" in output and f"writing to {folder}" in output
    assert all(torch.equal(weight, weights_of(calm)[name]) for name, weight in weights_of(folder).items())


def test_weights_alone_are_not_written_over(tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "run" / "checkpoints" / "best.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"precious")
    assert run_tiny(tables, tmp_path / "run", "resume=auto") == 2
    assert "set run_dir to another folder" in capsys.readouterr().err and weights.read_bytes() == b"precious"


def test_a_batch_larger_than_the_data_is_refused(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tiny(tables, tmp_path / "run", "data.batch_size=45") == 2
    assert "larger than the training split of 44 rows" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["task=[contrastive]"], ["task=[classification]", "fusion=concat"]])
def test_parts_that_no_task_reads_are_not_built(options: list[str], tables: Path, tmp_path: Path) -> None:
    assert run_tiny(tables, tmp_path / "run", *options, "trainer.max_steps=2") == 0
    parts = {p["part"] for p in json.loads((tmp_path / "run" / "summary.json").read_text())["parts"]}
    assert ("fusion" in parts) == ("classification" in options[0])


def test_the_best_checkpoint_is_chosen_by_a_task_that_the_validation_split_can_judge(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    shutil.copytree(tables / "images", root / "images")
    for split in ROWS:
        rows = [json.loads(line) for line in (tables / f"{split}.jsonl").read_text().splitlines()]
        kept = [row | ({"caption": None} if split == "val" else {}) for row in rows]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    assert run_tiny(root, tmp_path / "run") == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["best"]["metric"] == "val/classification/accuracy"
    assert run_tiny(root, tmp_path / "other", "task=[contrastive]") == 2
    message = capsys.readouterr()
    assert "no row of the validation split has the inputs and targets of this metric" in message.out + message.err
