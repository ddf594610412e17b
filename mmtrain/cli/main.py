"""The command line: Hydra, with every fault of the configuration reported before anything heavy is imported."""

import gc
import os
import re
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from mmtrain.cli.rank_environment import drop_rank_of_one_process, faults_of_rank
from mmtrain.cli.slurm import take_rank
from mmtrain.config.compose import CONFIG_NAME, config_dir, fill_auto, keep_last_overrides
from mmtrain.config.instantiate import add_working_folder
from mmtrain.config.moved import update_targets
from mmtrain.config.renamed import report, update_keys
from mmtrain.config.validate import faults_of, folder_of_run, help_text, with_current_keys, with_overrides_of_run
from mmtrain.errors import ConfigError
from mmtrain.io.escape import print_escaped
from mmtrain.io.os_errors import explanation
from mmtrain.io.run_files import write_config
from mmtrain.training.run_folder import lock_of_run

STOPPED = (130, 143)  # exit status after Ctrl-C and SIGTERM


def main() -> None:
    """Entry point of `mmtrain` and `python train.py`."""
    # waiting threads release their core: spinning is 5 times slower next to a loader or another run
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if note := drop_rank_of_one_process(os.environ):
        print_escaped(note, stderr=True)
    take_rank(os.environ)
    if faults := faults_of_rank(os.environ):
        print_escaped("\n".join(faults), stderr=True)
        sys.exit(2)
    parser = get_args_parser()
    if dashed := explain_dashes(sys.argv[1:], [flag for action in parser._actions for flag in action.option_strings]):
        print_escaped("\n".join(dashed), stderr=True)
        sys.exit(2)
    args = parser.parse_intermixed_args()
    flags = [word for word in sys.argv[1:] if word not in args.overrides]
    args.overrides, notes = keep_last_overrides(args.overrides)
    for note in notes:
        print_escaped(note, stderr=True)
    add_working_folder(folder_of_run(args.overrides))
    sys.argv[1:] = [*args.overrides, *flags]  # Hydra's parser stops at a flag between overrides
    if args.help and args.config_name is None:
        print_escaped(help_text(config_dir(), args.config_dir))
        return
    is_job = not (args.help or args.hydra_help or args.cfg or args.info or args.shell_completion)
    if args.config_name is None and is_job:
        gc.disable()  # the checks make many small objects, and little of it is garbage
        overrides, faults = with_overrides_of_run([normalize_override(o) for o in args.overrides], args.config_dir)
        if not faults:
            overrides, notes = with_current_keys(config_dir(), args.config_dir, overrides)
            for note in notes:
                report(note)
            faults = faults_of(config_dir(), args.config_dir, overrides, multirun=args.multirun)
        gc.enable()
        if faults:
            print_escaped("\n".join(faults), stderr=True)
            sys.exit(2)
        sys.argv[1:] = [*overrides, *flags]
    jobs: list[Job] = []
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=CONFIG_NAME)(Job.into(jobs))()
    sys.exit(max((job.status for job in jobs), default=0))  # a sweep has its own: mmtrain.cli.sweeps.summary.Summary


def explain_dashes(words: list[str], flags: list[str]) -> list[str]:
    """Faults of words in the style of other programs: `--lr 0.1`, `--batch_size=32`.

    Args:
        words: of the command line.
        flags: existing flags, which may be abbreviated.
    """
    faults = []
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if re.fullmatch(r"--?[A-Za-z][\w./-]*", flag) is None or any(known.startswith(flag) for known in flags):
            continue
        following = words[place + 1] if place + 1 < len(words) else ""
        apart = not equals and following and not following.startswith("-") and "=" not in following
        name, value = flag.lstrip("-").replace("-", "_"), value if equals else following if apart else "VALUE"
        key_faults = faults_of(config_dir(), None, [f"{name}={value}"], multirun=False)
        faults.append(f"{word}: keys are written without dashes\n    fix: write {name}={value}")
        faults += [fault for fault in key_faults if "there is no key" in fault]
    return faults


def normalize_override(override: str) -> str:
    """Convert an override in common spelling to the spelling of Hydra.

    A query is a sentence with its own commas and quotes.

    >>> normalize_override("search.query=a cat, on a mat"), normalize_override("search.query=[a,b]")
    ('search.query="a cat, on a mat"', 'search.query=[a,b]')
    """
    key, _, value = override.partition("=")
    if key != "search.query" or value.startswith(("[", '"', "'", "$")) or value in ("", "null"):
        return override
    return key + '="' + value.replace('"', '\\"') + '"'


class Job:
    """One run of this command line. A sweep has several."""

    def __init__(self, cfg: DictConfig) -> None:
        about = HydraConfig.get()
        self.run_dir = about.runtime.output_dir
        self.sweep_dir = about.sweep.dir if about.mode is RunMode.MULTIRUN else None
        self.overrides = list(about.overrides.task)
        with open_dict(cfg):
            cfg.run_dir = self.run_dir
            cfg.trial = self._trial(about)
            notes = [*update_targets(cfg), *update_keys(cfg, self.overrides)]
            fill_auto(cfg)
        if os.environ.get("RANK", "0") == "0":
            for note in notes:
                report(note)
        resolved = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
        assert isinstance(resolved, DictConfig)
        self.cfg = resolved
        self.status = 1

    def _trial(self, about: Any) -> dict[str, Any] | None:
        """For a sweep by Optuna: where this run reports its progress, if it may be pruned."""
        sweeper = about.sweeper
        if self.sweep_dir is None or "pruner" not in sweeper or sweeper.pruner is None or len(sweeper.objectives) > 1:
            return None
        return {"folder": self.sweep_dir, "number": int(Path(self.run_dir).name), "pruner": sweeper.pruner}

    @staticmethod
    def into(jobs: list["Job"]) -> Any:
        """The function that Hydra calls for each run. It records the run in `jobs`."""

        def task(cfg: DictConfig) -> None:
            if jobs and jobs[-1].status in STOPPED:  # stopping a run of a sweep stops the sweep
                return
            job = Job(cfg)
            jobs.append(job)
            try:
                job.status = job.run() if job.sweep_dir is None else job.run_in_sweep()
            except ConfigError as error:
                print_escaped(error, stderr=True)
                job.status = 2
            except Exception as error:  # noqa: BLE001 - the other runs of a sweep continue; the status reports it
                message = explanation(error, f"run_dir={job.run_dir}")
                print_escaped(message or traceback.format_exc(), stderr=True)
                job.status = 1 if message is None else 2

        return task

    def run_in_sweep(self) -> int:
        """Run, unless the run is already done or another process has it."""
        from mmtrain.training.sweep.records import JobRecord, skip_reason, try_lock

        folder, record = Path(self.run_dir), JobRecord(self.overrides, None)
        message = f"run {folder.name}: {' '.join(self.overrides)}"
        with try_lock(folder) as free:
            if not free:
                print_escaped(f"{message}\n    skipped: another process runs it")
                return 0
            try:
                reason = skip_reason(folder, self.overrides, goes_on=self.cfg.resume == "auto")
            except ValueError as error:
                print_escaped(error, stderr=True)
                return 2
            print_escaped(message if reason is None else f"{message}\n    {reason}")
            if reason is not None:
                return 0
            record.write(folder)
            status = 1
            try:
                status = self.run()
            finally:
                replace(record, status=status).write(folder)
        return status

    def run(self) -> int:
        """Run, unless another process uses the folder."""
        try:
            with lock_of_run(self.cfg):
                return self._run()
        except ConfigError as error:  # of the lock; errors of the run itself have been reported
            print_escaped(error, stderr=True)
            return 2

    def _run(self) -> int:
        """Run in this process, or in one process per device."""
        if self.cfg.trainer.find_batch_size and self.cfg.mode == "fit":
            from mmtrain.modes.plan.find import resolve_batch_size

            status = resolve_batch_size(self.cfg)
            if status:
                return status
        devices = self.cfg.trainer.devices
        alone = self.cfg.mode in ("plan", "search", "chat") or self.cfg.predict.index is not None
        if isinstance(devices, int) and devices > 1 and not alone and "LOCAL_RANK" not in os.environ:
            from mmtrain.cli.launch import launch, private_folder

            with private_folder() as folder:
                path = folder / "config.yaml"
                write_config(path, self.cfg)
                return launch(path, devices)
        from mmtrain.modes.run import run  # torch and Lightning take seconds

        return run(self.cfg)
