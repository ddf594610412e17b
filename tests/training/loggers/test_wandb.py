"""wandb without login or network: offline in the run folder, no prompt, no failure. And every logger option builds."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from mmtrain.build import compose
from mmtrain.training.loggers.csv import CSVMetrics
from mmtrain.training.loggers.wandb import QuietWandbLogger, has_login, make_wandb
from mmtrain.training.trainer import build_loggers

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine on which wandb was never used; gives the netrc file that is not there."""
    wandb.teardown()  # it reads the environment once
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_MODE", "")  # so that it is put back afterwards, for any value that the code sets
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield tmp_path / "netrc"
    wandb.finish()
    wandb.teardown()


def files(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def log_and_finish(logger: WandbLogger) -> None:
    logger.log_metrics({"loss": 0.5}, step=1)
    logger.experiment.finish()


def test_a_home_that_cannot_be_written_is_left_alone(
    stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):  # so that they are put back afterwards
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/proc/nohome")
    log_and_finish(make_wandb(run_dir=str(tmp_path / "run"), project="mmtrain", name=None))
    wandb.teardown()
    assert len(files(tmp_path / "run", "wandb/offline-run-*/run-*.wandb")) == 1
    message = "".join(capfd.readouterr())
    assert "nohome" not in message and "INFO" not in message


def test_without_a_login_it_writes_into_the_run_folder(
    stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(*args: Any) -> str:
        raise AssertionError("it prompted the user")

    monkeypatch.setattr("builtins.input", ask)
    run = tmp_path / "run"
    logger = make_wandb(run_dir=str(run), project="mmtrain", name=None)
    assert logger.name == "mmtrain" and logger.experiment.name == "run"
    name = (run / "wandb_id.txt").read_text()
    log_and_finish(logger)
    assert files(run, "wandb/offline-run-*/run-*.wandb") == [f"run-{name}.wandb"]
    message = "".join(capsys.readouterr())
    assert "Traceback" not in message and "anonymous" not in message

    again = make_wandb(run_dir=str(run), project="mmtrain", name="named")
    assert again.experiment.id == name, "a resumed run goes on under its id"
    assert again.experiment.name == "named"
    log_and_finish(again)


@pytest.mark.slow
def test_without_a_network_it_goes_on_offline(
    stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = wandb.Settings
    monkeypatch.setattr(wandb, "Settings", lambda **options: settings(**options | {"init_timeout": 1}))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    log_and_finish(make_wandb(run_dir=str(tmp_path / "run"), project="mmtrain", name=None))
    assert len(files(tmp_path / "run", "wandb/offline-run-*/run-*.wandb")) == 1
    output = capsys.readouterr().out
    assert "wandb cannot be reached" in output and "continuing offline" in output and "wandb sync" in output


def test_disabled_stays_disabled(stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    log_and_finish(make_wandb(run_dir=str(tmp_path / "run"), project="mmtrain", name=None))
    assert files(tmp_path / "run", "wandb/*run-*") == []


def test_asking_for_online_does_not_bring_a_prompt(
    stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    log_and_finish(make_wandb(run_dir=str(tmp_path / "run"), project="mmtrain", name=None))
    assert len(files(tmp_path / "run", "wandb/offline-run-*")) == 1


def test_every_run_of_a_sweep_is_a_run_of_wandb(stranger: Path, tmp_path: Path) -> None:
    for number in range(2):  # the first is not finished
        logger = make_wandb(run_dir=str(tmp_path / str(number)), project="mmtrain", name=None)
        logger.log_metrics({"loss": 0.5}, step=1)
        assert logger.experiment.id == (tmp_path / str(number) / "wandb_id.txt").read_text()
        assert len(files(tmp_path / str(number), "wandb/offline-run-*")) == 1


def test_a_login_is_a_key_or_a_line_in_netrc(stranger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_login()
    stranger.write_text("machine example.com login user password x\n")
    assert not has_login()
    stranger.write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert has_login()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8443/")
    assert not has_login(), "another server, another login"
    stranger.write_text(f"machine wandb.example.org login user password {KEY}\n")
    assert has_login()
    stranger.write_text("machine machine machine")
    assert not has_login()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert has_login()


def loggers_of(folder: Path, *overrides: str) -> list[Logger]:
    return build_loggers(compose([f"run_dir={folder}", *overrides]), resume_step=None)


def test_every_logger_option_builds_beside_csv(stranger: Path, tmp_path: Path) -> None:
    csv, tensorboard = loggers_of(tmp_path / "a", "logger=tensorboard")
    assert isinstance(csv, CSVMetrics) and isinstance(tensorboard, TensorBoardLogger)
    tensorboard.log_metrics({"loss": 0.5}, step=1)
    tensorboard.finalize("success")
    assert len(files(tmp_path / "a", "tensorboard/events.*")) == 1
    names = [path.stem for path in (Path(__file__).parents[3] / "configs/logger").glob("*.yaml")]
    built = loggers_of(tmp_path / "b", f"logger=[{','.join(sorted(names))}]")
    assert [type(logger) for logger in built] == [CSVMetrics, TensorBoardLogger, QuietWandbLogger]
    assert [type(logger) for logger in loggers_of(tmp_path / "c", "logger=[]")] == [CSVMetrics]
