"""The largest batch, by trying: what fits is taken, and a run that goes on keeps what it found."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmtrain.build import compose
from mmtrain.modes.plan import find
from mmtrain.modes.plan.find import resolve_batch_size
from tests.tiny import TINY_MODEL, make_tables


@pytest.mark.slow
def test_a_batch_size_is_found_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data=files", f"data.root={make_tables(tmp_path / 'data')}", *TINY_MODEL, "task=[contrastive]"]
    cfg = compose([*arguments, f"run_dir={tmp_path / 'run'}", "trainer.find_batch_size=true"])
    assert resolve_batch_size(cfg) == 0
    assert cfg.data.batch_size == 44  # more rows there are not
    assert "44 rows at once on a device, tries: 1; the plan estimated 44" in capsys.readouterr().out
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("data: {batch_size: 12}\noverrides: []\n")
    cfg.resume = "auto"
    assert resolve_batch_size(cfg) == 0
    assert cfg.data.batch_size == 12


def test_a_batch_size_above_the_rows_of_training_is_searched_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["data=files", f"data.root={make_tables(tmp_path / 'data')}", *TINY_MODEL, "task=[contrastive]"]
    cfg = compose([*arguments, "data.batch_size=128", f"run_dir={tmp_path / 'run'}", "trainer.find_batch_size=true"])
    tried: list[tuple[int, int]] = []

    def is_tried(config: Path, size: int) -> bool:
        tried.append((OmegaConf.load(config).data.batch_size, size))
        return size <= 20

    planned = {"machine": {"devices": 1}, "batch": {"micro_batches": 1, "largest_rows": 32}}
    monkeypatch.setattr(find, "make_plan", lambda cfg, data: planned)
    monkeypatch.setattr(find, "_is_tried", is_tried)
    assert find.find_batch_size(cfg, tmp_path)[0] == 20
    assert cfg.data.batch_size == 128  # it is not changed
    assert {size for size, _ in tried} == {44}  # of training


@pytest.mark.parametrize("size", ["{_target_: os.system, command: ls}", "'8'", "true", "null", "${oc.env:HOME}", "[8]"])
def test_a_batch_size_that_is_no_number_is_refused(
    size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = compose([f"run_dir={tmp_path}", "trainer.find_batch_size=true", "resume=auto"])
    before = cfg.data.batch_size
    (tmp_path / "config.yaml").write_text(f"data: {{batch_size: {size}}}\noverrides: []\n")
    assert resolve_batch_size(cfg) == 2 and cfg.data.batch_size == before
    assert str(tmp_path / "config.yaml") in capsys.readouterr().err


@pytest.mark.slow
def test_what_never_fits_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data=files", f"data.root={make_tables(tmp_path / 'data')}", *TINY_MODEL, "task=[contrastive]"]
    cfg = compose([*arguments, f"run_dir={tmp_path / 'run'}", "trainer.find_batch_size=true", "plan.memory=1KB"])
    assert resolve_batch_size(cfg) == 2
    assert "not even one row fits" in capsys.readouterr().err
