"""A search by Optuna, with runs that are a formula instead of training: what is requested, and how it is resumed."""

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from mmtrain.cli.sweeps.trials import Search, outcome, search_space
from mmtrain.training.sweep.records import JobRecord, try_lock
from mmtrain.training.sweep.study import NAME, storage_of

SPACE = ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "fusion=sum,concat", "data=files"]


class Formula(Launcher):
    """Runs that come to -(log10(lr) + 2)², and 0.1 more with concat; the one with `dies` as number never ends."""

    def __init__(self, folder: Path, *, dies: int | None = None, status: str = "done") -> None:
        self.folder = folder
        self.dies = dies
        self.status = status
        self.launched: list[list[str]] = []

    def setup(self, **facts: Any) -> None:
        """Nothing to set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        for overrides in job_overrides:
            said = dict(o.split("=", 1) for o in overrides)
            number = said.pop("hydra.sweep.subdir")
            folder = self.folder / number
            folder.mkdir(exist_ok=True)
            self.launched.append([f"{k}={v}" for k, v in said.items()])
            JobRecord(self.launched[-1], None).write(folder)
            if self.dies == int(number):
                raise KeyboardInterrupt
            value = -((math.log10(float(said["optimizer.lr"])) + 2) ** 2) + 0.1 * (said["fusion"] == "concat")
            best = {"value": value, "step": 8, "metric": "val/x", "mode": "max"}
            (folder / "summary.json").write_text(json.dumps({"status": self.status, "best": best}))
        return []


def search(folder: Path, launcher: Launcher, *, resume: str | None = "auto", **more: Any) -> Search:
    hydra = {"sweep": {"dir": str(folder)}}
    config = OmegaConf.create({"seed": 3, "resume": resume, "checkpoint": {"mode": "max"}, "hydra": hydra})
    options: dict[str, Any] = {"objectives": {}, "pruner": None} | more
    sampler = partial(optuna.samplers.TPESampler, n_startup_trials=4)
    return Search(config=config, launcher=launcher, sampler=sampler, **options)


def test_finds_what_is_best(tmp_path: Path) -> None:
    launcher = Formula(tmp_path)
    result = search(tmp_path, launcher)
    result.run(SPACE, 20, 1)
    assert len(launcher.launched) == 20
    best = result.study.best_trial
    assert best.params["fusion"] == "concat" and abs(math.log10(best.params["optimizer.lr"]) + 2) < 0.3
    assert all(job[0] == "data=files" for job in launcher.launched)


@pytest.mark.parametrize("dies", [0, 2, 7])
def test_goes_on_as_if_nothing_had_happened(dies: int, tmp_path: Path) -> None:
    calm, first, second = Formula(tmp_path / "calm"), Formula(tmp_path / "x", dies=dies), Formula(tmp_path / "x")
    search(tmp_path / "calm", calm).run(SPACE, 10, 1)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "x", first).run(SPACE, 10, 1)
    assert len(first.launched) == dies + 1
    search(tmp_path / "x", second).run(SPACE, 10, 1)
    assert first.launched[:-1] + second.launched == calm.launched
    ended = [[t.value for t in search(tmp_path / f, calm).study.trials] for f in ("calm", "x")]
    assert ended[0] == ended[1] and len(ended[0]) == 10


def test_several_at_once(tmp_path: Path) -> None:
    launcher = Formula(tmp_path)
    search(tmp_path, launcher).run(SPACE, 7, 3)
    assert len(launcher.launched) == 7 and sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == list("0123456")


def test_what_another_process_runs_is_left_to_it(tmp_path: Path) -> None:
    theirs = search(tmp_path, Formula(tmp_path, dies=0))
    with pytest.raises(KeyboardInterrupt):
        theirs.run(SPACE, 5, 1)
    with try_lock(tmp_path / "0"):
        launcher = Formula(tmp_path)
        search(tmp_path, launcher).run(SPACE, 5, 1)
    assert len(launcher.launched) == 4 and not (tmp_path / "0" / "summary.json").exists()
    assert theirs.study.trials[0].state is TrialState.RUNNING


def test_a_stopped_run_ends_the_sweep_and_is_gone_on_with(tmp_path: Path) -> None:
    stopped = Formula(tmp_path, status="stopped")
    search(tmp_path, stopped).run(SPACE, 5, 1)
    assert len(stopped.launched) == 1
    launcher = Formula(tmp_path)
    search(tmp_path, launcher).run(SPACE, 5, 1)
    assert len(launcher.launched) == 5 and launcher.launched[0] == stopped.launched[0]


def test_gives_up_after_three_failures_in_a_row(tmp_path: Path) -> None:
    launcher = Formula(tmp_path, status="failed")
    result = search(tmp_path, launcher)
    result.run(SPACE, 9, 1)
    assert [t.state for t in result.study.trials] == [TrialState.FAIL] * 3


def test_a_folder_with_a_study_is_not_begun_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search(tmp_path, Formula(tmp_path)).run(SPACE, 1, 1)
    with pytest.raises(SystemExit) as left:
        search(tmp_path, Formula(tmp_path), resume=None)
    assert (
        left.value.code == 2
        and "already contains a sweep\n    fix: resume it with resume=auto" in capsys.readouterr().err
    )


def test_several_objectives(tmp_path: Path) -> None:
    summary = {
        "status": "done",
        "best": {"value": 0.5, "step": 8, "metric": "val/a", "mode": "max"},
        "test": {"a/accuracy": {"value": 0.25, "chance": None}},
        "parameters": {"total": 100},
        "seconds": 2.5,
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "metrics.csv").write_text("step,val/a,val/b\n4,0.1,0.7\n8,0.5,0.3\n12,0.4,0.9\n")
    names = ["val/a", "val/b", "test/a/accuracy", "parameters", "seconds"]
    wanted = dict.fromkeys(names, "max")
    assert outcome(tmp_path, wanted) == (TrialState.COMPLETE, [0.5, 0.3, 0.25, 100.0, 2.5])
    assert outcome(tmp_path, {"val/no": "max"}) == (TrialState.FAIL, None)
    assert outcome(tmp_path, {}) == (TrialState.COMPLETE, [0.5])
    assert outcome(tmp_path / "none", {}) == (TrialState.FAIL, None)


def test_the_search_space_is_hydras_own_syntax() -> None:
    space, fixed = search_space(
        [
            "optimizer.lr=interval(0,1)",
            "optimizer.lr=tag(log,interval(1e-4,1e-2))",
            "encoder.image.depth=int(interval(2,6))",
            "data.batch_size=range(16,65,16)",
            "fusion=choice(sum,concat)",
            "seed=7",
            "task=[a,b]",
            "optimizer.weight_decay=0.1,0.01",
            "optimizer.weight_decay=0.2",
        ]
    )
    assert space == {
        "optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True),
        "encoder.image.depth": IntDistribution(2, 6),
        "data.batch_size": IntDistribution(16, 64, step=16),
        "fusion": CategoricalDistribution(["sum", "concat"]),
    }
    assert fixed == ["seed=7", "task=[a,b]", "optimizer.weight_decay=0.2"]


def test_the_study_lies_in_the_folder_of_the_sweep(tmp_path: Path) -> None:
    search(tmp_path, Formula(tmp_path)).run(SPACE, 2, 1)
    assert (tmp_path / "study.log").is_file()
    study = optuna.load_study(study_name=NAME, storage=storage_of(tmp_path))
    assert len(study.trials) == 2 and study.direction.name == "MAXIMIZE"


def test_a_value_of_the_journal_that_this_search_does_not_have_is_not_run(tmp_path: Path) -> None:
    """It would be an override, which can name code to run."""
    result = search(tmp_path, Formula(tmp_path))
    theirs = CategoricalDistribution(["{_target_:os.system,command:ls}"])
    number = result.study.ask({"optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True), "fusion": theirs}).number
    (tmp_path / str(number)).mkdir()
    JobRecord(["fusion=sum"], None).write(tmp_path / str(number))
    assert result._abandoned_trials(search_space(SPACE)[0]) == []
    assert result.study.trials[number].state is TrialState.FAIL
