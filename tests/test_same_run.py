"""What must be the same for a run to go on, what may differ, and what is said of each."""

from pathlib import Path

import pytest

from mmtrain.build import compose
from mmtrain.errors import ConfigError
from mmtrain.same_run import ROWS, check_same_run, facts_of

PATH = Path("a.ckpt")


def facts(*overrides: str, rows: str = "44 (abc)") -> dict[str, object]:
    return facts_of(compose(["run_dir=out", *overrides]), rows)


def test_the_same_run_goes_on_wherever_it_runs() -> None:
    other = ["run_dir=other", "resume=auto", "trainer=ddp", "data.num_workers=3", "logger=[csv,tensorboard]"]
    other += ["trainer.accumulate_grad_batches=2", "data.root=/elsewhere", "checkpoint.every_n_steps=5"]
    assert check_same_run(facts("data=files", "data.root=here"), facts("data=files", *other), PATH) == []


def test_a_run_folder_may_have_been_moved() -> None:
    parts = ["data=files", "data.root=here", "callbacks=[ema,ledger]"]
    assert check_same_run(facts(*parts), facts(*parts, "run_dir=moved"), PATH) == []


def test_longer_is_said_and_let_pass() -> None:
    said = check_same_run(facts(), facts("trainer.max_epochs=99"), PATH)
    assert said == [f"trainer.max_epochs was {compose([]).trainer.max_epochs} and is 99 now"]


def test_all_that_differs_is_listed_with_what_would_let_it_pass() -> None:
    now = facts("seed=3", "data.batch_size=16", "optimizer.lr=0.5", "encoder.text.dropout=0.3")
    with pytest.raises(ConfigError) as caught:
        check_same_run(facts(), now, PATH)
    message = str(caught.value)
    for key in ("seed was 0 and is 3 now", "data.batch_size was", "optimizer.lr was", "encoder.text.dropout was"):
        assert key in message
    assert "set what differs back" in message and "init_from=a.ckpt" in message
    keys = message.partition("resume.allow=[")[2].partition("]")[0].split(",")
    assert set(keys) == {"seed", "data.batch_size", "optimizer.lr", "encoder.text.dropout"}
    said = check_same_run(facts(), now, PATH, allow=["seed", "data", "optimizer.lr", "encoder.text"])
    assert len(said) == 4
    with pytest.raises(ConfigError, match=r"seed was(.|\n)*resume\.allow=\[seed\]") as caught:
        check_same_run(facts(), now, PATH, allow=["data", "optimizer", "encoder"])
    assert "optimizer" not in str(caught.value)


def test_other_rows_are_another_run() -> None:
    with pytest.raises(ConfigError) as caught:
        check_same_run(facts(), facts(rows="45 (abd)"), PATH)
    assert f"{ROWS} was 44 (abc) and is 45 (abd) now" in str(caught.value)
    assert "allow" not in str(caught.value)


def test_a_part_that_came_or_went_is_named() -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.ema\.\S+ was (.|\n)* and is not there now"):
        check_same_run(facts(), facts("callbacks=[]"), PATH)
