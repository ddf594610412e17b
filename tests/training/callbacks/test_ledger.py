"""The ledger: every sample once an epoch, and steps that come again are written once."""

import json
from pathlib import Path

from tests.runs import run_tiny
from tests.tiny import ROWS, make_tables


def test_every_sample_once_an_epoch_also_after_a_kill(tmp_path: Path) -> None:
    tables, path = make_tables(tmp_path / "data"), tmp_path / "run" / "ledger.jsonl"
    given = ["callbacks=[ledger]", "task=[classification]", "fusion=concat"]
    assert run_tiny(tables, tmp_path / "run", *given, "trainer.max_epochs=1") == 0
    first = path.read_text()
    path.write_text(first + '{"step": 7, "epoch": 1, "ids": ["train-0"]}\n{"step": 8, "ep')  # what a kill leaves
    assert run_tiny(tables, tmp_path / "run", *given, "trainer.max_epochs=2", "resume=auto") == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert path.read_text().startswith(first)
    assert [line["step"] for line in lines] == list(range(1, 13))
    for epoch in (0, 1):
        ids = [id for line in lines if line["epoch"] == epoch for id in line["ids"]]
        assert sorted(ids) == sorted(f"train-{number}" for number in range(ROWS["train"]))
