"""What must be the same to resume a run, what may differ, and the messages."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmtrain.build import compose
from mmtrain.errors import ConfigError
from mmtrain.training.checkpoint.resume import IDS_OF_ROWS, check_same_run, config_fingerprint, facts_to_compare

PATH = Path("a.ckpt")
Rows = dict[str, Any]
DATA: Rows = {
    "train": {"count": 44, "columns": {"caption": "c1", "label": "l1", "seg.png": "s1"}, "files": {"image": "44 (f1)"}},
    "val": {"count": 13, "columns": {"caption": "c2", "label": "l2"}},
    "test": {"count": 15, "columns": {"caption": "c3"}},
}


def facts(*overrides: str, rows: Rows = DATA) -> dict[str, Any]:
    return config_fingerprint(compose(["run_dir=out", *overrides]), rows)


def of_rows(rows: Rows) -> dict[str, Any]:
    return config_fingerprint(OmegaConf.create({"seed": 0}), rows)


def data(**changed: Any) -> Rows:
    """The rows, with other facts of a split."""
    return {**DATA, **{split: {**DATA[split], **facts} for split, facts in changed.items()}}


def refusal(now: Rows, before: Rows = DATA, **options: Any) -> list[str]:
    """The message for rows that differ, and its last line."""
    with pytest.raises(ConfigError) as caught:
        check_same_run(of_rows(before), of_rows(now), PATH, **options)
    first, *lines = str(caught.value).splitlines()
    assert first == "a.ckpt: cannot be resumed exactly"
    return [line.removeprefix("    ") for line in lines]


def test_the_same_run_goes_on_wherever_it_runs() -> None:
    other = ["run_dir=other", "resume=auto", "trainer=ddp", "data.num_workers=3", "logger=[csv,tensorboard]"]
    other += ["trainer.accumulate_grad_batches=2", "data.root=/elsewhere", "checkpoint.every_n_steps=5"]
    assert check_same_run(facts("data=files", "data.root=here"), facts("data=files", *other), PATH) == []


def test_the_files_of_the_splits_may_be_elsewhere_and_their_rows_are_compared() -> None:
    before = facts("data=files", "data.root=here")
    files = ["data=files", "data.train=a.csv", "data.val=/elsewhere/b.csv"]
    assert check_same_run(before, facts(*files), PATH) == []
    with pytest.raises(ConfigError, match="training"):
        check_same_run(before, facts(*files, rows=data(train={"count": 45})), PATH)


def test_a_run_folder_may_have_been_moved() -> None:
    parts = ["data=files", "data.root=here", "callbacks=[ema,ledger]"]
    assert check_same_run(facts(*parts), facts(*parts, "run_dir=moved"), PATH) == []


def test_a_knob_that_an_earlier_version_lacks_and_that_is_off_lets_a_run_go_on() -> None:
    now = facts()
    before = {key: value for key, value in now.items() if key != "data.inputs.image.value_range"}
    assert check_same_run(before, now, PATH) == []
    with pytest.raises(ConfigError, match="value_range"):
        check_same_run(before, {**now, "data.inputs.image.value_range": [0, 4095]}, PATH)


def test_longer_is_said_and_let_pass() -> None:
    notes = check_same_run(facts(), facts("trainer.max_epochs=99"), PATH)
    assert notes == [f"trainer.max_epochs was {compose([]).trainer.max_epochs} and is 99 now"]


def test_all_that_differs_is_listed_with_what_would_let_it_pass() -> None:
    now = facts("seed=3", "data.batch_size=16", "optimizer.lr=0.5", "encoder.text.dropout=0.3")
    with pytest.raises(ConfigError) as caught:
        check_same_run(facts(), now, PATH)
    message = str(caught.value)
    for key in ("seed was 0 and is 3 now", "data.batch_size was", "optimizer.lr was", "encoder.text.dropout was"):
        assert key in message
    assert "restore these values" in message and "init_from=a.ckpt" in message
    keys = message.partition("resume_allow=[")[2].partition("]")[0].split(",")
    assert set(keys) == {"seed", "data.batch_size", "optimizer.lr", "encoder.text.dropout"}
    notes = check_same_run(facts(), now, PATH, allow=["seed", "data", "optimizer.lr", "encoder.text"])
    assert len(notes) == 4
    with pytest.raises(ConfigError, match=r"seed was(.|\n)*resume_allow=\[seed\]") as caught:
        check_same_run(facts(), now, PATH, allow=["data", "optimizer", "encoder"])
    assert "optimizer" not in str(caught.value)


def test_other_rows_are_another_run_and_what_differs_is_named() -> None:
    message = refusal(data(train={"columns": {"caption": "other", "label": "l1", "seg.png": "s1"}}))
    assert message[0] == "rows of the training split: the column caption differs"
    assert "resume_allow=[rows.train]" in message[1] and "init_from=a.ckpt" in message[1]
    (message, _) = refusal(data(train={"columns": {"caption": "other", "label": "other"}}))
    assert message == "rows of the training split: the columns caption, label, seg.png differ"
    (message, _) = refusal(data(train={"count": 45, "columns": {"caption": "other", "label": "other"}}))
    assert message == "rows of the training split: 44 rows before, 45 rows now"
    message, fix = refusal(data(train={"files": {"image": "43 (f2)"}}))
    assert message == "rows of the training split: files of the column image differ: 44 (f1) before, 43 (f2) now"
    assert "'resume_allow=[rows.train.files]'" in fix


def test_other_rows_of_evaluation_are_refused_with_the_reason() -> None:
    val, test, fix = refusal(data(val={"count": 5}, test={"columns": {"caption": "other"}}))
    assert val == (
        "rows of the validation split: 13 rows before, 5 rows now (best scores would be from two different splits)"
    )
    assert test == "rows of the test split: the column caption differs (the final test would use other rows)"
    assert "'resume_allow=[rows.val,rows.test]'" in fix
    without = {split: rows for split, rows in DATA.items() if split != "val"}
    assert refusal(without)[0].startswith("rows of the validation split: 13 rows before, no such rows now (")
    assert refusal(DATA, without)[0].startswith("rows of the validation split: no such rows before, 13 rows now (")


def test_rows_of_mixtures_and_shards_are_named_by_part() -> None:
    part = {"count": 9, "shards": "a", "columns": {"txt": "b"}}
    mixed: Rows = {"train": {"count": 18, "order": "x, y", "parts": {"x": part, "y": part}}}
    changed = {
        "count": 18,
        "order": "y, x",
        "parts": {"x": {**part, "shards": "other"}, "y": {**part, "columns": {"txt": "c"}}},
    }
    (said, _) = refusal({"train": changed}, mixed)
    assert said == (
        "rows of the training split: the parts were x, y and are y, x now;"
        " part x: names, sizes or samples of the shards differ; part y: the column txt differs"
    )
    more = {**mixed["train"], "count": 19, "parts": {"x": part, "y": {**part, "count": 10}}}
    (said, _) = refusal({"train": more}, mixed)
    assert said == "rows of the training split: 18 rows before, 19 rows now; part y: 9 rows before, 10 rows now"


@pytest.mark.parametrize("allow", [["rows"], ["rows.val"], ["rows.val.columns"], ["rows.val.columns.label"]])
def test_who_means_other_rows_can_go_on_and_it_is_logged(allow: list[str]) -> None:
    now = data(val={"columns": {"caption": "c2", "label": "other"}})
    (said,) = check_same_run(of_rows(DATA), of_rows(now), PATH, allow=allow)
    assert said.startswith("rows of the validation split: the column label differs (best")
    assert said.endswith("; allowed by resume_allow")


def test_what_is_not_allowed_is_refused_alone() -> None:
    now = data(val={"count": 5}, train={"count": 43})
    said, fix = refusal(now, allow=["rows.val"])
    assert said == "rows of the training split: 44 rows before, 43 rows now" and "[rows.train]" in fix
    said, _ = refusal(data(val={"columns": {"caption": "x", "label": "x"}}), allow=["rows.val.columns.caption"])
    assert said.startswith("rows of the validation split: the column label differs")


def test_of_a_checkpoint_of_an_earlier_version_the_ids_are_compared() -> None:
    old = {"seed": 0, IDS_OF_ROWS: "44 (abc)"}
    before, now, notes = facts_to_compare(old, of_rows(DATA), ids=lambda: "44 (abc)")
    assert check_same_run(before, now, PATH) == [] and "only the number of training rows and some ids" in notes[0]
    before, now, _ = facts_to_compare(old, of_rows(DATA), ids=lambda: "45 (abd)")
    with pytest.raises(ConfigError, match=r"rows of the training split: was 44 \(abc\) and is 45 \(abd\) now"):
        check_same_run(before, now, PATH)
    (said,) = check_same_run(before, now, PATH, allow=["rows.train"])
    assert said.endswith("allowed by resume_allow")

    def unused() -> str:
        raise AssertionError("ids are only compared for an old checkpoint")

    assert facts_to_compare(of_rows(DATA), of_rows(DATA), ids=unused) == (of_rows(DATA), of_rows(DATA), [])


def test_a_part_that_came_or_went_is_named() -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.ema\.\S+ was (.|\n)* and is absent now"):
        check_same_run(facts(), facts("callbacks=[]"), PATH)
