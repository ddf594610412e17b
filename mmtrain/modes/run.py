"""One run, from a resolved configuration to a run folder. `fit` lists the steps of a training run.

`python -m mmtrain.modes.run CONFIG.yaml` is one rank of a run with several processes.
"""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, WeightAveraging
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason

from mmtrain.build import build_data, build_lit, build_model, check_parts
from mmtrain.config.compose import config_dir
from mmtrain.data.module import DataModule
from mmtrain.data.protocols import HasVocabulary
from mmtrain.distributed import gather_objects, is_main, world_size
from mmtrain.errors import ConfigError, WriteError
from mmtrain.io.console import Terminal
from mmtrain.io.escape import print_escaped
from mmtrain.io.run_files import CONFIG, read_json_lines, write_config, write_json, write_json_lines
from mmtrain.modes.robustness import (
    evaluate_corrupted,
    evaluate_groups,
    evaluate_zero_shot,
    headline,
    write_rows,
)
from mmtrain.modes.runtime_errors import explain_error, status_of
from mmtrain.report.card import DataFacts, write_card
from mmtrain.report.losses import describe_loss, loss_sentences
from mmtrain.report.report import write_report
from mmtrain.report.table import metrics_table, not_evaluated_sentences
from mmtrain.training.attention_maps import attention_items
from mmtrain.training.callbacks.footprint import PeakMemoryMonitor
from mmtrain.training.callbacks.interruptions import Stopped
from mmtrain.training.callbacks.parts import model_summary
from mmtrain.training.callbacks.quarantine import Quarantine
from mmtrain.training.callbacks.run_summary import RunSummary
from mmtrain.training.callbacks.skips import NonFiniteGuard
from mmtrain.training.checkpoint.load import (
    WEIGHTS,
    best_checkpoint,
    check_same_model,
    check_same_names,
    load_checkpoint,
    newest_checkpoint,
)
from mmtrain.training.checkpoint.resume import (
    changed_optimizer_options,
    check_same_run,
    config_fingerprint,
    facts_to_compare,
)
from mmtrain.training.checkpoint.safetensors import write_weights
from mmtrain.training.checkpoint.transfer import load_pretrained
from mmtrain.training.compile import compile_regions, log_compilation
from mmtrain.training.evaluation import evaluates_rows
from mmtrain.training.fsdp.shard import load_weights
from mmtrain.training.launched_rank import end_with_launcher
from mmtrain.training.lit_module import LitModel, ignore_skipped, no_attention_items
from mmtrain.training.memory import tune_malloc
from mmtrain.training.nonfinite import Diverged, SkippedStep, describe_weights
from mmtrain.training.run_folder import lock_of_run
from mmtrain.training.trainer import build_trainer
from mmtrain.types import AttentionMap, View

# by whether a callback averages the weights
WEIGHTS_OF = {True: "the moving average of the weights", False: "the current weights"}
# without a terminal, the log is wide enough for the tables
console = Terminal(width=None if sys.stdout.isatty() else 120)


def run(cfg: DictConfig) -> int:
    """Run the mode of a configuration, and return the exit status."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # nothing to save before training
    _quiet()
    tune_malloc()
    try:
        modes = {"fit": fit, "test": test, "predict": predict, "plan": plan, "search": search, "chat": chat}
        with lock_of_run(cfg):
            modes[cfg.mode](cfg)
    except WriteError as error:
        print_escaped(error, stderr=True)  # printed by the rank with the error
        return 2
    except ConfigError as error:
        _print_error(str(error))
        return 2
    except Diverged as error:  # on every rank
        if is_main():
            _print_error(str(error))
        return 2
    except Stopped as stopped:
        if is_main():
            console.print(str(stopped), markup=False, soft_wrap=True)
        return stopped.status
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        message = explain_error(error, cfg)
        if message is None:
            raise
        print_escaped(message, stderr=True)  # printed by the rank with the error
        return status_of(error)
    return 0


def fit(cfg: DictConfig) -> None:
    """Train, test the best checkpoint, and write a complete run folder in every case."""
    folder = Path(cfg.run_dir)
    check_parts(cfg)
    resume = _resume_path(cfg)
    if resume is None:
        _refuse_to_write_over(folder, anew=cfg.resume == "auto")
    data = build_data(cfg)
    data.read(folder, training=True, bound=resume is not None and folder.resolve() in resume.resolve().parents)
    footprint = PeakMemoryMonitor()
    skips = NonFiniteGuard(folder, max_in_row=cfg.trainer.max_nonfinite_steps)
    if resume is None:
        checkpoint = None
        lit = _build(cfg, data, on_step_skipped=skips)
        facts = config_fingerprint(cfg, data.row_facts())
    else:
        checkpoint = load_checkpoint(resume)
        check_same_names(checkpoint, data.names(), resume)
        facts = config_fingerprint(cfg, data.row_facts())
        before, now, notes = facts_to_compare(
            checkpoint["mmtrain"]["facts"], facts, ids=lambda: data.id_digest("train")
        )
        lit = _build(cfg, data, on_step_skipped=skips, changed_optimizer_options=changed_optimizer_options(before, now))
        check_same_model(checkpoint, lit, resume)
        data.notes += [*notes, *check_same_run(before, now, resume, allow=cfg.resume_allow)]
    summary = RunSummary(cfg, lit, data, loss=describe_loss(cfg), footprint=footprint, facts=facts)
    if checkpoint is not None:
        summary.resume(checkpoint)
    of_data = [*data.notes, *_not_read(data)]
    summary.values["data_notes"] = [_without_folder(note, data.folder) for note in of_data]
    if is_main():
        for note in [*of_data, *_replaced_callbacks(cfg)]:
            console.print(note, markup=False, soft_wrap=True)
        write_config(folder / CONFIG, cfg)
        console.print(model_summary(summary.parts))
        for line in loss_sentences(summary.values["loss"]):
            console.print(line, markup=False, soft_wrap=True)
    if cfg.init_from is not None and resume is None:
        path = Path(cfg.init_from)
        pictures = [m for m, kind in data.inputs.items() if kind.kind == "image"]
        table = load_pretrained(load_checkpoint(path), lit, path, names=data.names(), pictures=pictures)
        if is_main():
            console.print(table)
    step = None if checkpoint is None else checkpoint["global_step"]
    data.first_step = step or 0
    if is_main():
        where = f"resuming at step {step} of {resume}" if step is not None else f"writing to {folder}"
        console.print(where, markup=False, soft_wrap=True)
    quarantine = _quarantine(cfg, data)
    if step is None:
        quarantine.begin()
    skips.begin(step or 0)
    extra = [summary, quarantine, footprint]
    trainer = build_trainer(cfg, monitor=_monitor(cfg, lit, data), resume_step=step, extra=extra)
    averaged = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    summary.values["evaluated_weights"] = "average" if averaged else "current"
    if is_main():
        console.print(f"validation and test evaluate {WEIGHTS_OF[averaged]}", markup=False, soft_wrap=True)
    try:
        with _naming_weights(lit):
            trainer.fit(lit, datamodule=data, ckpt_path=resume, weights_only=True)
        summary.trained(trainer)
        if reason := early_stop(trainer.callbacks, trainer.max_epochs):  # type: ignore[attr-defined]
            summary.values["stopped_early"] = reason
            if is_main():
                console.print(reason, markup=False, soft_wrap=True)
        best = load_checkpoint(best_checkpoint(folder))
        if cfg.checkpoint.safetensors and is_main():
            write_weights(best, folder / "checkpoints" / WEIGHTS)
        if "test" in data.tables:
            # not with ckpt_path: Lightning's averaging callback would load the weights before averaging
            load_weights(lit, best["state_dict"])
            _evaluate_robustness(cfg, lit, data, trainer, summary)
        _finish(summary, "done")
    except Stopped as stopped:
        summary.trained(trainer)
        _finish_if_possible(summary, stopped.outcome)
        raise
    except BaseException as error:
        outcome = "stopped" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
        _finish_if_possible(summary, outcome, error)
        raise


@contextmanager
def _naming_weights(lit: LitModel) -> Iterator[None]:
    """Add a description of the weights to errors of metrics with NaN or infinity, which do not know the weights."""
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(f"{error}\n    {describe_weights(lit.model)}") from error


def test(cfg: DictConfig) -> None:
    """Test a checkpoint of a run folder on the test split, or a pretrained pair that was not trained here."""
    _begin_if_pretrained(cfg)
    lit, data, trainer, summary = _load(cfg)
    _evaluate_robustness(cfg, lit, data, trainer, summary)
    _finish(summary, "done")


def _evaluate_robustness(
    cfg: DictConfig, lit: LitModel, data: DataModule, trainer: Trainer, summary: RunSummary
) -> None:
    """Test on the test split, and as `cfg.test` says: by groups, corrupted, zero-shot."""
    with _naming_weights(lit):
        trainer.test(lit, datamodule=data, verbose=False)
    summary.tested()
    options, clean = cfg.test, lit.table
    main = headline(lit, clean)
    if options.group_by is not None:
        summary.add_table("groups", evaluate_groups(lit, data, trainer, column=options.group_by), main=main)
    if options.corruptions:
        names, severities = options.corruptions, options.severities
        rows = evaluate_corrupted(lit, data, trainer, names=names, severities=severities, clean=clean)
        summary.add_table("corruptions", rows, main=main)
    if options.zero_shot is not None:
        summary.values["test"] |= evaluate_zero_shot(
            lit,
            data,
            column=options.zero_shot,
            templates=_plain(options.templates),
            class_names=_plain(options.get("class_names")),  # earlier configurations do not have it
        )


def _begin_if_pretrained(cfg: DictConfig) -> None:
    if "pretrained" in cfg.encoder and cfg.init_from is None and cfg.resume is None:
        from mmtrain.modes.pretrained_run import begin_pretrained_run  # few runs need it

        if is_main():
            begin_pretrained_run(cfg)
        gather_objects(None)  # the others wait for its files


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def predict(cfg: DictConfig) -> None:
    """Write predictions.jsonl, one line per row of the test split; or an index of the vectors of every row."""
    _begin_if_pretrained(cfg)
    if cfg.predict.index is not None:
        from mmtrain.modes.search.finding import make_index

        make_index(cfg, console)
        return
    lit, data, trainer, _ = _load(cfg)
    batches = trainer.predict(lit, datamodule=data, return_predictions=True)
    mine = [row for batch in batches or [] for row in batch]
    rows = [row for part in gather_objects(mine) for row in part]
    if not is_main():
        return
    path = Path(cfg.run_dir) / "predictions.jsonl"
    split = data.split("test")
    rows.sort(key=lambda row: row["row"])
    for row in rows:
        row["text"] = split.text(row.pop("row"))
    write_json_lines(path, rows)
    console.print(f"{len(rows)} predictions in {path}", markup=False, soft_wrap=True)


def plan(cfg: DictConfig) -> None:
    """Report the resources that `mode=fit` would need, and write them to plan.json."""
    from mmtrain.modes.plan.plan import make_plan  # only this mode needs it
    from mmtrain.modes.plan.table import plan_tables

    check_parts(cfg)
    folder = Path(cfg.run_dir)
    data = build_data(cfg)
    data.read(folder, training=True, bound=newest_checkpoint(folder).path is not None)
    planned = make_plan(cfg, data)
    write_json(folder / "plan.json", planned, indent=1)
    for table in plan_tables(planned):
        console.print(table)
    console.print(f"plan: {folder / 'plan.json'}", markup=False, soft_wrap=True)


def search(cfg: DictConfig) -> None:
    """Find the items that are nearest to the queries."""
    from mmtrain.modes.search.finding import search as find  # only this mode needs it

    find(cfg, console)


def chat(cfg: DictConfig) -> None:
    """Let a user chat with the model."""
    from mmtrain.modes.chat.repl import chat as talk

    talk(cfg, console)


def _finish_if_possible(summary: RunSummary, status: str, error: BaseException | None = None) -> None:
    """As `_finish`. If it fails, for example on a full disk, the error that ended the run is still reported."""
    try:
        _finish(summary, status, error)
    except (WriteError, OSError) as second:
        reason = str(second).splitlines()[0]
        _print_error(f"{summary.folder}: summary.json and report.html cannot be written: {reason}")


def _finish(summary: RunSummary, status: str, error: BaseException | None = None) -> None:
    """Write summary.json, the tables, the model card and report.html, and print the results and where they are.

    Args:
        summary: of the run.
        status: done, failed or stopped.
        error: that ended the run.
    """
    lit, data, folder = summary.lit, summary.data, summary.folder
    if not is_main() or not folder.is_dir():
        return
    summary.write(status, error)
    for name, rows in summary.tables.items():
        write_rows(folder / f"{name}.csv", rows)
    split = data.split(summary.split) if summary.split in data.tables else None
    card = write_card(folder, _data_facts(lit, data)) if status == "done" else None
    page = write_report(
        folder,
        exhibits=lit.report_items,
        picture=lambda name: None if split is None else split.picture(split.position(name)),
        text=lambda name: None if split is None else split.text(split.position(name)),
    )
    bad = folder / "quarantine.jsonl"
    if count := len(read_json_lines(bad)):
        samples = "sample" if count == 1 else "samples"
        console.print(f"{count} {samples} could not be read: {bad}", markup=False, soft_wrap=True)
    if summary.values["zero_steps"]:
        message = f"the weight of every task was 0 in {summary.values['zero_steps']} of {summary.values['steps']} steps"
        console.print(message, markup=False, soft_wrap=True)
    for line in not_evaluated_sentences(summary.values["not_judged"]):
        console.print(line, markup=False, soft_wrap=True)
    if summary.values["test"]:
        console.print(metrics_table(summary.values["test"]))
    console.print(f"report: {page}", markup=False, soft_wrap=True)
    if card is not None:
        console.print(f"card: {card}", markup=False, soft_wrap=True)


def _data_facts(lit: LitModel, data: DataModule) -> DataFacts:
    tasks = lit.model.named_tasks().values()
    # a dialogue may have no media
    learned = [(t.needs if evaluates_rows(t) or not t.targets else None, t.targets) for t in tasks]
    return DataFacts(
        name=data.folder.name,
        license=data.license,
        languages=data.languages,
        reads=list(lit.model.encoders),
        rows={name: len(table) for name, table in data.tables.items()},
        filled={name: data.filled(name) for name in data.tables},
        usable=(data.num_usable("train", learned) or None) if "train" in data.tables else None,
    )


def _build(
    cfg: DictConfig,
    data: DataModule,
    *,
    on_step_skipped: Callable[[SkippedStep], None] = ignore_skipped,
    changed_optimizer_options: Sequence[str] = (),
    checkpoint_step: int | None = None,
) -> LitModel:
    """Build the LightningModule of a run, with its random weights drawn from the seed."""
    seed_everything(cfg.seed, verbose=False)
    model = build_model(cfg, data)
    split = cache(data.split)  # ids are requested row by row
    lit = build_lit(
        cfg,
        model,
        row_id=lambda stage, row: split(stage).name(row),
        attention_items=_attention_items(data, list(model.encoders)),
        on_step_skipped=on_step_skipped,
        changed_optimizer_options=changed_optimizer_options,
        checkpoint_step=checkpoint_step,
    )
    if cfg.trainer.compile:
        compile_regions(model, backend="inductor", tell=log_compilation)
    return lit


def _attention_items(data: DataModule, modalities: list[str]) -> Callable[[View], list[AttentionMap]]:
    """The attention of a batch that the report shows: from text over an image, if the run has both inputs."""
    of_kind = {data.inputs[m].kind: m for m in reversed(modalities)}
    image, text = of_kind.get("image"), of_kind.get("text")
    if image is None:
        return no_attention_items
    kind = None if text is None else data.inputs[text]
    names: list[str] = kind.words() if isinstance(kind, HasVocabulary) else []
    return partial(attention_items, image=image, text=text, words=lambda ids: [names[i] for i in ids])


def _load(cfg: DictConfig) -> tuple[LitModel, DataModule, Trainer, RunSummary]:
    folder = Path(cfg.run_dir)
    named = cfg.init_from or (cfg.resume if cfg.resume not in (None, "auto") else None)
    path = Path(named) if named else best_checkpoint(folder)
    checkpoint = load_checkpoint(path)
    data = build_data(cfg)
    zero_shot = cfg.mode == "test" and cfg.test.zero_shot is not None
    data.read(folder, training=False, predicting=cfg.mode == "predict" or zero_shot)
    data.split("test")
    lit = _build(cfg, data, checkpoint_step=checkpoint["global_step"])
    check_same_names(checkpoint, data.names(), path)
    check_same_model(checkpoint, lit, path)
    lit.load_state_dict(checkpoint["state_dict"])
    summary = RunSummary(cfg, lit, data, loss=describe_loss(cfg))
    trainer = build_trainer(
        cfg,
        monitor=_monitor_if_any(cfg, lit, data),
        resume_step=checkpoint["global_step"],
        extra=[_quarantine(cfg, data)],
    )
    if is_main():
        for note in data.notes:
            console.print(note, markup=False, soft_wrap=True)
        kept = WEIGHTS_OF["current_model_state" in checkpoint]
        console.print(f"weights of {path} (step {checkpoint['global_step']}): {kept}", markup=False, soft_wrap=True)
    return lit, data, trainer, summary


def _quarantine(cfg: DictConfig, data: DataModule) -> Quarantine:
    num_rows = {name: len(table) for name, table in data.tables.items()}
    return Quarantine(cfg.run_dir, num_rows=num_rows, max_bad_fraction=data.max_bad_fraction)


def _resume_path(cfg: DictConfig) -> Path | None:
    if cfg.resume is None:
        return None
    if cfg.resume != "auto":
        return Path(cfg.resume)
    newest = newest_checkpoint(Path(cfg.run_dir))
    for line in newest.rejected if is_main() else []:
        console.print(line, markup=False, soft_wrap=True)
    return newest.path


def _refuse_to_write_over(folder: Path, *, anew: bool) -> None:
    """Check that the folder has no run, unless the run is resumed.

    Args:
        folder: of the run.
        anew: whether a run without a complete checkpoint may be started again.

    Raises:
        ConfigError: if the folder has checkpoints or a summary.
    """
    if not is_main():
        return
    begun = () if anew else ("summary.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt")
    kept = (*begun, f"checkpoints/{WEIGHTS}")
    existing = [name for name in kept if (folder / name).exists()]
    if existing:
        raise ConfigError(
            f"run_dir={folder}: already contains a run ({', '.join(existing)})\n"
            + (
                "    fix: set run_dir to another folder"
                if anew
                else "    fix: resume it with resume=auto, or set run_dir to another folder"
            )
        )


def _without_folder(note: str, folder: Path) -> str:
    """What a note says without its fix, and without where on this machine the data is: the card is published."""
    return note.splitlines()[0].replace(str(folder), folder.name)


def _not_read(data: DataModule) -> list[str]:
    """The columns that are not used in training."""
    columns = data.columns_not_read()
    return [f"columns that are not read: {', '.join(columns)}"] if columns else []


def _monitor(cfg: DictConfig, lit: LitModel, data: DataModule) -> str | None:
    """The metric that chooses the best checkpoint; None if there is no validation split.

    Raises:
        ConfigError: if no row of the validation split is sufficient for that metric.
    """
    if "val" not in data.tables:
        return None
    tasks = lit.model.named_tasks()
    evaluated = [n for n, task in tasks.items() if data.has_row("val", needs=task.needs, targets=task.targets)]
    if cfg.monitor is None and evaluated:
        return f"val/{evaluated[0]}/{tasks[evaluated[0]].monitor}"
    if cfg.monitor is not None and evaluated and str(cfg.monitor).split("/")[1] in ["loss", *evaluated]:
        return str(cfg.monitor)
    wanted = cfg.monitor or f"val/{next(iter(tasks))}/{next(iter(tasks.values())).monitor}"
    other = f"set monitor to val/{evaluated[0]}/{tasks[evaluated[0]].monitor}, or " if evaluated else ""
    raise ConfigError(
        f"monitor={wanted}: no row of the validation split has the inputs and targets of this metric's task\n"
        f"    fix: {other}fill the columns of the validation split"
    )


def early_stop(callbacks: Sequence[Callback], max_epochs: int | None) -> str | None:
    """When and why early stopping ended the training; None if it did not."""
    for callback in callbacks:
        if isinstance(callback, EarlyStopping) and callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            reason = (callback.stopping_reason_message or "").removesuffix(" Signaling Trainer to stop.")
            epochs = "" if max_epochs in (None, -1) else f" of {max_epochs}"
            return f"early stopping ended the training after epoch {callback.stopped_epoch + 1}{epochs}: {reason}"
    return None


def _monitor_if_any(cfg: DictConfig, lit: LitModel, data: DataModule) -> str | None:
    """As `_monitor`, for modes that choose no checkpoint: new data may not have the columns of the metric."""
    try:
        return _monitor(cfg, lit, data)
    except ConfigError:
        return None


def _replaced_callbacks(cfg: DictConfig) -> list[str]:
    """Defaults that are off because a list of callbacks on the command line replaces the default list, as in Hydra.

    An empty list, and a callback that is removed by name, are intended and not reported.
    """
    defaults = OmegaConf.load(config_dir() / "train.yaml").defaults
    names = next(entry.callbacks for entry in defaults if "callbacks" in entry)
    chosen = [o for o in cfg.overrides if o.startswith("callbacks=")]
    replaced = [name for name in names if name not in cfg.callbacks and f"~callbacks.{name}" not in cfg.overrides]
    if not chosen or not cfg.callbacks or not replaced:
        return []
    return [
        f"{chosen[-1]}: replaces the default callbacks=[{','.join(names)}], which turns {', '.join(replaced)} off\n"
        f"    fix: set callbacks=[{','.join([*replaced, *cfg.callbacks])}] to keep it"
    ]


def _print_error(text: str) -> None:
    """Print an error: once per machine before the ranks have joined, because all have it; afterwards on each rank."""
    if os.environ.get("LOCAL_RANK", "0") == "0" or world_size() > 1:
        print_escaped(text, stderr=True)


def _leave(signum: int, frame: Any) -> None:
    """SIGTERM before or after training: there is nothing to save."""
    raise SystemExit(143)


def _quiet() -> None:
    """Hide warnings of Lightning about choices that are intended here."""
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*Total length of `list` across ranks is zero.*",  # without a validation split
        ".*exists and is not empty.*",
        ".*sync_dist=True.*",  # logged values are already summed over the ranks
        ".*custom batch sampler `EvalSteps`.*",  # it yields every row once
        ".*your dataloader is not resumable.*",  # it is, through DataModule.first_step
        ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", text)


def main() -> None:
    """One rank of a run."""
    end_with_launcher()
    cfg = OmegaConf.load(sys.argv[1])
    assert isinstance(cfg, DictConfig)
    status = 1
    try:
        status = run(cfg)
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the rank ends here for any error
        print_escaped(traceback.format_exc(), stderr=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a failed rank must not wait in the teardown of its process group


if __name__ == "__main__":
    main()
