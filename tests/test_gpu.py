"""On a GPU: every part, mixed precision, stopping and going on, steps that are not finite, no memory left."""

import json
from pathlib import Path

import pytest
import torch

from tests.balance.test_ranks import BALANCES
from tests.encoders.test_encoders import MAKERS
from tests.runs import assert_same_run, rows_of, run_tiny, stop_and_resume
from tests.test_combinations import FUSIONS, fitting, take_steps
from tests.tiny import make_tables
from tests.training.test_nonfinite import Plant, run_with, spoil_a_picture

pytestmark = pytest.mark.gpu
PRECISIONS = ["32", "bf16-mixed", "16-mixed"]
GPU = ["trainer=gpu", "trainer.benchmark=false", "trainer.deterministic=true"]


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("tiny") / "data")


@pytest.mark.parametrize("name", MAKERS)
def test_every_encoder_takes_steps_there(name: str) -> None:
    pairs = [(fusion, task) for fusion, task in fitting() if fusion in ("cross_attn", FUSIONS[0])]
    take_steps(name, pairs, torch.device("cuda"))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_takes_steps_there(fusion: str) -> None:
    take_steps("image/vit", [(f, task) for f, task in fitting() if f == fusion], torch.device("cuda"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_stopped_and_resumed_is_as_never_stopped(precision: str, tables: Path, tmp_path: Path) -> None:
    options = [*GPU, f"trainer.precision={precision}", "task.contrastive.queue_size=16"]
    assert run_tiny(tables, tmp_path / "calm", *options) == 0
    assert all(0 < float(row["train/loss"]) < 100 for row in rows_of(tmp_path / "calm"))
    stop_and_resume(4, tables, tmp_path / "run", *options)
    assert_same_run(tmp_path / "calm", tmp_path / "run")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_there_is_as_on_the_cpu(precision: str, tables: Path, tmp_path: Path) -> None:
    """Without dropout, whose draws differ: the losses of all steps agree as well as the precision can."""
    still = ["encoder.image.drop_path=0", "encoder.image.dropout=0", "encoder.text.dropout=0", "fusion.dropout=0"]
    still += ["task=[contrastive,classification]", "task.classification.dropout=0", "optimizer.eps=1e-3"]
    assert run_tiny(tables, tmp_path / "cpu", *still) == 0
    assert run_tiny(tables, tmp_path / "gpu", *still, *GPU, f"trainer.precision={precision}") == 0
    one, two = ([float(row["train/loss"]) for row in rows_of(tmp_path / name)] for name in ("cpu", "gpu"))
    assert one == pytest.approx(two, rel=1e-4 if precision == "32" else 0.03)


@pytest.mark.parametrize("balance", BALANCES)
def test_every_balance_trains_with_a_scaler(balance: str, tables: Path, tmp_path: Path) -> None:
    options = [*GPU, "trainer.precision=16-mixed", f"balance={balance}", "trainer.max_epochs=1"]
    assert run_tiny(tables, tmp_path / "run", *options) == 0
    assert all(abs(float(row["train/loss"])) < 100 for row in rows_of(tmp_path / "run"))


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_a_sample_that_is_not_finite_is_passed_over(precision: str, tables: Path, tmp_path: Path) -> None:
    plant = Plant(3, spoil_a_picture)
    assert run_with(plant, tables, tmp_path / "run", *GPU, f"trainer.precision={precision}") == 0
    assert (tmp_path / "run" / "skipped.jsonl").read_text().count("\n") == 1


def test_no_memory_left_says_what_to_change(tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["data.inputs.image.size=512", "dim=256", "task=[classification]", *GPU]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.002)
    try:
        assert run_tiny(tables, tmp_path / "run", *options) == 1
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    output = capsys.readouterr().err
    assert "the device is out of memory: " in output and "trainer.accumulate_grad_batches=2 (1 now" in output


def test_a_checkpoint_of_there_is_tested_here(tables: Path, tmp_path: Path) -> None:
    assert run_tiny(tables, tmp_path / "run", *GPU, "trainer.precision=32") == 0
    there = json.loads((tmp_path / "run" / "summary.json").read_text())["test"]
    assert run_tiny(tables, tmp_path / "run", "mode=test") == 0
    here = json.loads((tmp_path / "run" / "summary.json").read_text())["test"]
    assert there.keys() == here.keys()
    for name, result in there.items():
        assert here[name]["value"] == pytest.approx(result["value"], rel=1e-3), name
