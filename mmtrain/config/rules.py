"""Rules of a composed configuration, for single keys and for combinations: one small function per rule, in `RULES`."""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmtrain.config.instantiate import check_trust
from mmtrain.config.provenance import PAIR_KEYS, ComposedConfig
from mmtrain.config.rules_hardware import (
    rule_accelerator,
    rule_common_folder,
    rule_gpus,
    rule_nodes,
    rule_precision,
    rule_run_dir,
    rule_sync_batchnorm,
    rule_workers,
    rule_world_size,
)
from mmtrain.config.rules_tables import missing_tables, rule_tables
from mmtrain.config.rules_values import annotated_keys, rule_values
from mmtrain.config.signatures import fault_of, parameters_of
from mmtrain.config.suggestions import TABLES
from mmtrain.config.task_inputs import INPUT_KEYS, reads_fused, required_modalities
from mmtrain.errors import ConfigError
from mmtrain.metrics.direction import best_mode
from mmtrain.units import parse_duration

OF_A_RUN = ("test", "predict", "search", "chat")  # modes of a run that is trained
READ_DATA = ("fit", "plan", "test", "predict")  # modes that open the tables
EXISTING_FOLDER = "mmtrain.data.sources.files.existing_folder"
FETCHED_FOLDER = "mmtrain.data.sources.fetch.fetched_folder"
# Keys that the program itself reads; those of a part are its constructor's.
NEEDED = (
    *("mode", "seed", "run_dir", "resume", "resume_allow", "init_from", "trust", "monitor", "predict", "search"),
    *("test.subsets", "test.corruptions", "test.severities", "test.group_by", "test.zero_shot", "test.templates"),
    *("checkpoint.mode", "checkpoint.every_n_steps", "checkpoint.every_minutes"),
    *("checkpoint.background", "checkpoint.safetensors"),
    *("data", "encoder", "task", "balance", "optimizer", "schedule", "trainer", "logger", "callbacks"),
    *("data.inputs", "data.source", "data.targets", "data.batch_size"),
    *("trainer.devices", "trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.max_nonfinite_steps"),
    *("trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "trainer.log_every_n_steps", "trainer.compile"),
    *("trainer.find_batch_size", "plan"),
)
# knobs of configs/trainer that belong to the step and not to Lightning's Trainer
OWN_TRAINER_KEYS = (
    *("accumulate_grad_batches", "gradient_clip_val", "compile", "max_time", "max_nonfinite_steps"),
    *("find_batch_size", "gradient_cache", "profile", "tf32"),
)
# what training/trainer.py gives the Trainer itself
GIVEN_TO_TRAINER = (
    *("callbacks", "logger", "plugins", "default_root_dir", "num_sanity_val_steps", "use_distributed_sampler"),
    *("enable_model_summary", "accumulate_grad_batches", "gradient_clip_val", "max_time"),
)
GROUPS = ("data", "data.inputs", "encoder", "task", "trainer", "logger", "callbacks")
# Arguments that build.py adds to those of the configuration, by the first word of the key.
ADDED: Mapping[str, tuple[str, ...]] = {
    "data": ("seed", "num_micro_batches"),
    "encoder": ("in_dim",),
    "fusion": ("dims",),
    "task": ("dims", "known_targets", "vocabularies", "encoders", "decides"),
    "balance": ("tasks",),
    "modality_balance": ("tasks", "dims"),
    "logger": ("resume_step",),
}
# Lightning and torch accept null and some words for their own arguments, and report what they reject.
NULLABLE = re.compile(
    r"optimizer\.|checkpoint\.every_|(callbacks|logger)\.\w+\.|trainer\.(?!accumulate_grad_batches|log_every_n_steps|compile|max_nonfinite_steps)"
)
FREE = ("trust", "trainer.devices")
# Keys of an encoder that are not arguments of its constructor: mmtrain/layers/finetuning.py
TUNING = ("freeze", "freeze_until", "lr_mult", "layer_decay", "checkpointing", "peft")


def rule_complete(run: ComposedConfig) -> Iterator[str]:
    """Every key that a run needs exists. Without them no other rule can run."""
    missing = [key for key in NEEDED if key not in run.raw]
    first = {run.where(key): key for key in reversed(missing) if key.rpartition(".")[0] not in missing}
    for where, key in sorted(first.items(), key=lambda item: missing.index(item[1])):
        fix = f"remove {where.removeprefix('override ')}" if where.startswith("override ") else f"set {key}"
        yield f"{key}: missing, but every run needs it ({where})\n    fix: {fix}"
    for key in GROUPS:
        value = run.raw.get(key, {})
        if not isinstance(value, Mapping) and not str(value).startswith("${"):
            yield f"{key}={value}: not a group of keys ({run.where(key)})\n    fix: set its keys"
        elif "_target_" in value and key not in ("data", "trainer"):
            where = run.where(f"{key}._target_")
            yield f"{key}: contains components by name, but has a _target_ ({where})\n    fix: move it into {key}.NAME"


def rule_fusion(run: ComposedConfig) -> Iterator[str]:
    """If a task reads fused features, there is a fusion."""
    tasks = {name: task for name, task in run.cfg.task.items() if isinstance(task, DictConfig)}
    reading = [name for name, task in tasks.items() if reads_fused(task)]
    if reading and "fusion" not in run.cfg:
        where = run.where("fusion")
        alone = " ".join(f"task.{name}.input=image" for name in reading)
        yield (
            f"task.{reading[0]}.input=fused: there is no fusion ({where})\n"
            f"    fix: choose a fusion, such as fusion=concat, or let tasks read one modality: {alone}"
        )


def rule_kinds(run: ComposedConfig) -> Iterator[str]:
    """A value has the type of the default, if its argument has no annotation."""
    roots = [run.root(key) for key, _ in annotated_keys(run)]
    annotated = {*FREE, *roots, *(key.rpartition(".")[0] for key in roots)}
    for key, raw in run.raw.items():
        if key in annotated or run.root(key) != key or (raw is None and NULLABLE.match(key)):
            continue
        default, value = run.default(key), run.get(key)
        if isinstance(default, str | None) or _is_like(value, default):
            continue
        kind, fix = _kind(key, default)
        yield f"{key}={value}: not {kind} ({run.where(key)})\n    fix: {fix}"


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(default, Mapping):
        return isinstance(value, DictConfig)
    if isinstance(default, list):
        return OmegaConf.is_list(value)
    if isinstance(default, bool):
        return isinstance(value, bool)
    return isinstance(value, int | type(default)) and not isinstance(value, bool)


def _kind(key: str, default: Any) -> tuple[str, str]:
    if isinstance(default, Mapping):
        inside = f"set one of them, such as {key}.{next(iter(default))}, or " if default else ""
        return "a group of keys", f"{inside}remove the group with ~{key}"
    if isinstance(default, list):
        return "a list", f"set {key} to a list, such as {key}=[{','.join(map(str, default))}]"
    if isinstance(default, bool):
        return "true or false", f"set {key} to one of these"
    return "an integer" if isinstance(default, int) else "a number", f"set {key} to one, such as {key}={default}"


def _is_spoken_of(run: ComposedConfig, key: str) -> bool:
    """Whether a key belongs to a component of every run, or to an encoder that the command line or a task names.

    A set of encoders has one for every modality. A user without videos does not have to fix the video encoder. Its
    faults are reported when it is built.
    """
    words = key.split(".")
    if words[0] != "encoder" or words[1] in ("image", "text"):
        return True
    overrides = [*run.set_by.values(), *run.chosen_by.values()]
    return any(words[1] in override for override in overrides)


def rule_heads(run: ComposedConfig) -> Iterator[str]:
    """The width is divisible by the number of attention heads."""
    for key in [k.removesuffix(".num_heads") for k in run.raw if k.endswith(".num_heads") and _is_spoken_of(run, k)]:
        dim, heads = run.get(f"{key}.dim"), run.get(f"{key}.num_heads")
        if isinstance(dim, int) and isinstance(heads, int) and heads > 0 and dim > 0 and dim % heads:
            divisors = sorted((h for h in range(1, dim + 1) if dim % h == 0), key=lambda h: abs(h - heads))
            fitting = " or ".join(map(str, sorted(divisors[:2])))
            yield (
                f"{key}.dim={dim}: not divisible by {key}.num_heads={heads}"
                f" ({run.where(f'{key}.dim', f'{key}.num_heads')})\n"
                f"    fix: set {key}.num_heads to {fitting}, or {run.root(f'{key}.dim')} to {-(-dim // heads) * heads}"
            )


def rule_patches(run: ComposedConfig) -> Iterator[str]:
    """The image size is divisible by the patch size, and the mel bands of a spectrogram by those of a patch."""
    for part, size_key in _PATCHES.items():
        for key in [k for k in run.raw if k.endswith(f".{part}") and _is_spoken_of(run, k)]:
            of = f"{key.removesuffix(part)}{size_key}"
            size, patch = run.get(of), run.get(key)
            if isinstance(size, int) and isinstance(patch, int) and patch > 0 and size > 0 and size % patch:
                near = min((p for p in range(1, size + 1) if size % p == 0), key=lambda p: abs(p - patch))
                yield (
                    f"{of}={size}: not divisible by {key}={patch} ({run.where(of, key)})\n"
                    f"    fix: set {key} to {near}, or {run.root(of)} to {-(-size // patch) * patch}"
                )


_PATCHES = {"patch_size": "image_size", "patch_mels": "num_mels"}


def rule_sizes(run: ComposedConfig) -> Iterator[str]:
    """An encoder takes images or video frames in the size that the data provides."""
    for key in [k for k in run.raw if re.fullmatch(r"encoder\.(\w+\.)+image_size", k) and _is_spoken_of(run, k)]:
        given = f"data.inputs.{key.split('.')[1]}.size"
        size, expected = run.get(key), run.get(given)
        if isinstance(size, int) and isinstance(expected, int) and size != expected:
            yield (
                f"{key}={size}: {given}={expected} differs ({run.where(key, given)})\n"
                f"    fix: set {key} to {expected}, or {given} to {size}"
            )


def rule_devices(run: ComposedConfig) -> Iterator[str]:
    """Devices are a number or a list."""
    devices = run.cfg.trainer.devices
    listed = OmegaConf.is_list(devices) and len(devices) > 0 and all(isinstance(d, int) for d in devices)
    if not (listed or re.fullmatch(r"auto|-1|[1-9]\d*|\d+(,\d+)+", str(devices))):
        yield (
            f"trainer.devices={devices}: not a number of devices ({run.where('trainer.devices')})\n"
            "    fix: set trainer.devices to a number such as 2, a list such as [0,1], or auto"
        )


def rule_trainer(run: ComposedConfig) -> Iterator[str]:
    """Lightning's Trainer has every argument that is set."""
    taken = [
        name for name in parameters_of("pytorch_lightning.trainer.trainer.Trainer") if name not in GIVEN_TO_TRAINER
    ]
    known = [*taken, *OWN_TRAINER_KEYS]
    for name in map(str, run.cfg.trainer if taken else ()):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean trainer.{near[0]}?" if near else f"remove trainer.{name}"
            yield f"trainer.{name}: the Trainer has no such argument ({run.where(f'trainer.{name}')})\n    fix: {fix}"


def rule_balance(run: ComposedConfig) -> Iterator[str]:
    """Balancing needs several tasks."""
    target = str(run.get("balance._target_"))
    if len(run.cfg.task) == 1 and target.startswith("mmtrain.") and not target.endswith(".Fixed"):
        name, (only,) = target.rpartition(".")[2], run.cfg.task
        yield (
            f"balance={name}: balances several tasks, but there is only {only} ({run.where('balance', 'task')})\n"
            "    fix: set balance=fixed, or choose more tasks"
        )


def rule_step_split(run: ComposedConfig) -> Iterator[str]:
    """Every device and every micro-batch of a step gets a sample."""
    devices, parts, size = (run.get(k) for k in ("trainer.devices", *_STEP))
    if not (isinstance(parts, int) and isinstance(size, int)) or min(parts, size) < 1:
        return
    parts *= devices if isinstance(devices, int) and devices > 0 else 1
    if size < parts:
        yield (
            f"data.batch_size={size}: too small for {parts} parts, trainer.devices x trainer.accumulate_grad_batches"
            f" ({run.where(*_STEP, 'trainer.devices')})\n    fix: set data.batch_size to at least {parts}"
        )


_STEP = ("trainer.accumulate_grad_batches", "data.batch_size")


def rule_tasks(run: ComposedConfig) -> Iterator[str]:
    """There is a task, and its modalities and target exist."""
    if not run.cfg.task:
        yield f"task=[]: no task is chosen ({run.where('task')})\n    fix: choose tasks, such as task=[contrastive]"
    for name, task in run.cfg.task.items():
        if not isinstance(task, DictConfig):
            continue
        pair = [("modalities", m) for m in task.get("modalities") or [] if OmegaConf.is_list(task.modalities)]
        reads = [(key, task[key]) for key in INPUT_KEYS if task.get(key, "fused") != "fused"]
        if len(set(pair)) < len(pair):
            key = f"task.{name!s}.modalities"
            yield (
                f"{key}=[{','.join(m for _, m in pair)}]: the same modality twice ({run.where(key)})\n"
                f"    fix: set {key} to two different ones, such as [image,text]"
            )
        for word, modality in dict.fromkeys([*reads, *pair]):
            if modality == "fused" and "policy" in task:
                continue
            yield from _missing_modality(run, f"task.{name!s}.{word}", modality)
        known = [str(name) for name in run.cfg.data.targets]
        if "target" in task and task.target not in known:
            key = f"task.{name!s}.target"
            near = difflib.get_close_matches(str(task.target), known, n=1) or known[:1]
            fix = f"did you mean {near[0]}? Otherwise" if near else "You can"
            learning = task.get("policy", task)
            kind = "text" if "decoder" in learning else "chat" if "lm" in learning else "class"
            yield (
                f"{key}={task.target}: data.targets has only {', '.join(known) or 'no targets'} ({run.where(key)})\n"
                f"    fix: {fix} add the target with +target@data.targets.{task.target}={kind}"
            )


def _missing_modality(run: ComposedConfig, key: str, modality: Any) -> Iterator[str]:
    for place in ("encoder", "data.inputs"):
        known = [str(k) for k in run.get(place) if place != "encoder" or k not in PAIR_KEYS]
        if modality not in known:
            near = difflib.get_close_matches(str(modality), [*known, "fused"], n=1)
            tasks = {str(n): task for n, task in run.cfg.task.items() if isinstance(task, DictConfig)}
            left = [name for name, task in tasks.items() if modality not in required_modalities(task)]
            leave = f"remove the tasks that read it: task=[{','.join(left)}]" if left else "choose another task"
            fix = f"did you mean {near[0]}?" if near else f"choose one of them, or {leave}"
            yield f"{key}={modality}: {place} has only {', '.join(known) or 'none'} ({run.where(key)})\n    fix: {fix}"
            return


def rule_targets(run: ComposedConfig) -> Iterator[str]:
    """Every component names an existing class, and the class takes the arguments that are set."""
    inner = dict(_inner_parts(run))
    for key, node in [*run.parts(), *inner.items()]:
        if key == "logger.csv" or (node is None and isinstance(run.default(key), Mapping)):  # rule_kinds reports it
            continue
        if not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str):
            where = run.where(f"{key}._target_")
            yield f"{key}: _target_ is missing ({where})\n    fix: set {key}._target_=package.module.Class"
            continue
        if key == "schedule" and _takes_optimizer(node._target_):
            continue
        of_source = _read_by_source(run) if key == "data" else set()
        tuning = TUNING if key.startswith("encoder.") and ".peft" not in key else ()
        own = [str(k) for k in node if not re.fullmatch(r"_\w+_", str(k)) and k not in tuning]
        is_part = key not in inner or re.fullmatch(r"task\.\w+\.policy", key)  # a policy is a task
        handed_over = (*ADDED.get(key.split(".")[0], ()), *tuning) if is_part else tuning
        added = None if node.get("_partial_") or "_args_" in node else handed_over
        for what, fix in fault_of(node._target_, own, added=added):
            argument = re.fullmatch(r"(?:does not take|needs) (\w+).*", what)
            if argument is not None and what.startswith("does not") and argument[1] in of_source:
                continue
            named = f"{key}._target_" if argument is None else f"{key}.{argument[1]}"
            if what.startswith("does not take") and run.where(named).startswith("configs/") and "mean" not in fix:
                fix = f"remove it with ~{named}"  # an argument of the class that was chosen before
            yield f"{key}._target_={node._target_}: {what} ({run.where(named)})\n    fix: {fix}"


# the problem with another kind of schedule, and the fix
NO_SCHEDULE = "not a function (step, total_steps) -> factor of the learning rate"
FIX_SCHEDULE = (
    "fix: set schedule=cosine or schedule=constant, or name a function of your own, with _partial_: true;"
    " the LRScheduler classes of torch.optim are not such functions"
)


def rule_schedule(run: ComposedConfig) -> Iterator[str]:
    """The schedule is a function of the step, not a scheduler class, which takes an optimizer."""
    target = run.get("schedule._target_")
    if isinstance(target, str) and _takes_optimizer(target):
        where = run.where("schedule._target_")
        yield f"schedule._target_={target}: {NO_SCHEDULE} ({where})\n    {FIX_SCHEDULE}"


def _takes_optimizer(target: str) -> bool:
    names = target.split(".")
    return len(names) > 1 and all(name.isidentifier() for name in names) and "optimizer" in parameters_of(target)


def _inner_parts(run: ComposedConfig) -> Iterator[tuple[str, Any]]:
    """Components inside an encoder or a task, such as the image encoder in a video encoder."""
    for target in [key for key in run.raw if re.fullmatch(r"(encoder|task)\.\w+\..+\._target_", key)]:
        yield target.removesuffix("._target_"), run.get(target.removesuffix("._target_"))


def _read_by_source(run: ComposedConfig) -> set[str]:
    """Keys below data, such as data.root, that are there for convenience; data.source reads them."""
    of_source = [value for key, value in run.raw.items() if key.startswith("data.source.") and isinstance(value, str)]
    return {name for value in of_source for name in re.findall(r"\$\{data\.(\w+)\}", value)} | {"root"}


def _missing_folders(run: ComposedConfig) -> Iterator[str]:
    """Folders of the data set, or of the parts of a mixture. Parts that share a folder report it once."""
    roots = {"data.root": run.get("data.root")}
    commands: dict[str, str] = {}
    for place in ("data.source", *(f"data.parts.{name}.source" for name in run.get("data.parts") or ())):
        target, key = run.get(f"{place}._target_"), run.root(f"{place}.root")
        if target in (EXISTING_FOLDER, FETCHED_FOLDER):
            roots[key] = run.get(f"{place}.root")
        if target == FETCHED_FOLDER:
            commands[key] = run.get(f"{place}.command")
    for key, root in roots.items():
        path = Path(str(root)).expanduser()
        is_table = path.suffix.lower() in TABLES and path.is_file()
        if root is None or path.is_dir() or (is_table and run.get("data.source._target_") == EXISTING_FOLDER):
            continue
        if key in commands:
            yield (
                f"{key}={root}: does not exist; this data set is downloaded once ({run.where(key)})\n"
                f"    fix: run {commands[key]}, or set {key} to the folder of the data set"
            )
            continue
        inside = path.is_file()
        folder = f"={path.parent}, its folder" if inside else " to the folder with train.jsonl"
        yield (
            f"{key}={root}: not a folder ({run.where(key)})\n"
            f"    fix: set {key}{folder}{'' if inside else ' (or .csv, .parquet ...)'}"
        )


def rule_files(run: ComposedConfig) -> Iterator[str]:
    """Files and folders of the configuration exist."""
    if run.get("mode") in READ_DATA:
        yield from missing_tables(run)
        yield from _missing_folders(run)
    for key in ("resume", "init_from"):
        value = run.get(key)
        if key == "resume" and str(value).endswith(".safetensors") and run.get("mode") == "fit":
            yield (
                f"resume={value}: contains only weights, no optimizer and no position in the data ({run.where(key)})\n"
                f"    fix: start a new run with init_from={value}, or resume from a .ckpt file"
            )
            continue
        if value is None or (key == "resume" and value == "auto") or Path(str(value)).is_file():
            continue
        what = "is a folder" if Path(str(value)).is_dir() else "does not exist"
        go_on = "set resume=auto to resume the run in run_dir, or " if key == "resume" else ""
        yield (
            f"{key}={value}: {what} ({run.where(key)})\n"
            f"    fix: {go_on}name a checkpoint, such as {'outputs/mine' if go_on else 'RUN'}/checkpoints/last.ckpt"
        )
    folder = run.get("run_dir")
    path = Path(str(folder))
    in_file = any(os.path.isfile(p) for p in (path, *path.parents))  # noqa: PTH113 - Path.is_file can raise
    if folder is None or not str(folder).strip() or in_file:
        what = "is a file, or inside a file" if str(folder or "").strip() else "not the name of a folder"
        yield f"run_dir={folder}: {what} ({run.where('run_dir')})\n    fix: set run_dir=DIR, such as outputs/mine"


def rule_duration(run: ComposedConfig) -> Iterator[str]:
    """The run has at least one step, and an end, because the schedule needs its length."""
    epochs, steps = run.cfg.trainer.max_epochs, run.cfg.trainer.max_steps
    where = run.where("trainer.max_epochs", "trainer.max_steps")
    if epochs in (None, -1) and steps in (None, -1):
        what = f"trainer.max_epochs={epochs}: neither trainer.max_epochs nor trainer.max_steps is set"
        yield f"{what} ({where})\n    fix: set trainer.max_epochs=20"
    elif 0 in (epochs, steps):
        what = f"trainer.max_epochs={epochs}, trainer.max_steps={steps}: the run would have no training step"
        yield f"{what} ({where})\n    fix: set the one with value 0 to 1"


def rule_max_time(run: ComposedConfig) -> Iterator[str]:
    """A time limit is days:hours:minutes:seconds."""
    try:
        parse_duration(run.cfg.trainer.max_time)
    except ValueError:
        yield (
            f"trainer.max_time={run.cfg.trainer.max_time}: not days:hours:minutes:seconds"
            f" ({run.where('trainer.max_time')})\n    fix: write a time limit such as trainer.max_time=00:12:00:00"
        )


def rule_monitor(run: ComposedConfig) -> Iterator[str]:
    """The metric that selects the best checkpoint exists, and `checkpoint.mode` keeps the best value of it."""
    monitor, mode = run.cfg.monitor, run.cfg.checkpoint.mode
    tasks = [str(name) for name in run.cfg.task]
    if monitor is None:
        if mode == "min":
            where = run.where("checkpoint.mode")
            yield (
                f"checkpoint.mode=min: the default metric of a task is better when it is higher ({where})\n"
                "    fix: set checkpoint.mode=max, or name a metric, such as monitor=val/loss"
            )
        return
    words = str(monitor).split("/")
    of_a_task = len(words) > 2 and words[1] in tasks and all(words)
    if words[0] != "val" or not (of_a_task or words[1:] == ["loss"]):
        yield (
            f"monitor={monitor}: not a metric of validation ({run.where('monitor')})\n"
            f"    fix: {_name_metric(str(monitor), tasks)}"
        )
        return
    yield from _wrong_direction(run, "monitor", "checkpoint.mode")


def rule_callback_monitor(run: ComposedConfig) -> Iterator[str]:
    """A callback that watches a metric, such as early stopping, takes the right value for the best."""
    for name, node in run.cfg.callbacks.items():
        if isinstance(node, DictConfig) and isinstance(node.get("monitor"), str):
            yield from _wrong_direction(run, f"callbacks.{name}.monitor", f"callbacks.{name}.mode")


def _wrong_direction(run: ComposedConfig, monitor: str, mode: str) -> Iterator[str]:
    metric, kept = run.get(monitor), run.get(mode)
    better = best_mode(str(metric))
    if better is None or kept not in ("min", "max") or kept == better:
        return
    low, high = ("lower", "highest") if better == "min" else ("higher", "lowest")
    does = f"would keep the {high}" if mode == "checkpoint.mode" else f"treats the {high} as the best"
    yield (
        f"{monitor}={metric}: better when it is {low}, but {mode}={kept} {does}"
        f" ({run.where(monitor, mode)})\n    fix: set {mode}={better}"
    )


_SPLITS = re.compile(r"(val(id)?|validation|dev|eval|train(ing)?|test)([/_.: -]+|$)", re.IGNORECASE)
# names in other programs
_METRICS = {"acc": "accuracy", "f1": "macro_f1", "auc": "auroc", "map": "mean_average_precision", "ppl": "perplexity"}


def _name_metric(monitor: str, tasks: Sequence[str]) -> str:
    """The metric that a name probably means: val/loss, or val/TASK/METRIC."""
    split = _SPLITS.match(monitor)
    rest = monitor[split.end() :] if split else monitor
    task = next((task for task in tasks if re.match(rf"{re.escape(task)}([/_.: -]|$)", rest)), None)
    if task is not None:
        rest = rest[len(task) + 1 :]
    elif rest.strip("/").count("/"):  # a misspelt task, or one that this run does not have
        name, _, rest = rest.partition("/")
        task = next(iter(difflib.get_close_matches(name, tasks, n=1)), None)
        rest = rest if task else ""
    metric = rest.strip("/_.: -")
    metric = metric if best_mode(metric) else _METRICS.get(metric.lower(), metric.lower())
    metric = metric if re.fullmatch(r"[A-Za-z][\w@/]*", metric) else ""
    if metric == "loss" and task is None:
        return "set monitor=val/loss checkpoint.mode=min"
    meant = [f"val/{name}/{metric or 'loss'}" for name in ([task] if task is not None else tasks or ["TASK"])]
    mode = ", with checkpoint.mode=min" if best_mode(meant[0]) == "min" else ""
    if metric:
        return f"set monitor to {' or '.join(meant)}{mode}"
    return f"set monitor to val/loss or a metric of a task, such as {meant[0]}{mode}"


def rule_sharded(run: ComposedConfig) -> Iterator[str]:
    """Complete weights and gradients are not available with FSDP, whose ranks keep shards of them."""
    if run.cfg.trainer.strategy != "fsdp":
        return
    but = f"but with trainer.strategy=fsdp each rank has only a shard ({run.where('trainer.strategy')})"
    for name, node in run.cfg.callbacks.items():
        if str(node.get("_target_")).endswith("WeightAveraging"):
            yield f"callbacks.{name}: averages complete weights, {but}\n    fix: use callbacks=[ema] instead"
    if run.get("balance.gradients_of") == "parameters":
        yield (
            f"balance.gradients_of=parameters: compares complete gradients, {but}\n"
            "    fix: set balance.gradients_of=features"
        )


def rule_half_weights(run: ComposedConfig) -> Iterator[str]:
    """An average of 16-bit weights does not change, because an update is smaller than their last digit."""
    if str(run.cfg.trainer.precision) not in ("bf16-true", "16-true"):
        return
    message = f"trainer.precision={run.cfg.trainer.precision}"
    where = run.where("trainer.precision")
    for name, node in run.cfg.callbacks.items():
        if str(node.get("_target_")).endswith((".EMA", "WeightAveraging")):
            yield (
                f"{message}: 16-bit weights cannot be averaged, and callbacks.{name} averages them ({where})\n"
                f"    fix: add ~callbacks.{name}, or set trainer.precision=bf16-mixed"
            )
    if str(run.cfg.trainer.precision) == "16-true":
        yield (
            f"{message}: small gradients become zero ({where})\n    fix: set trainer.precision to bf16-true or 16-mixed"
        )


def rule_search(run: ComposedConfig) -> Iterator[str]:
    """A search has a query."""
    if run.get("mode") != "search":
        return
    query = run.get("search.query")
    if query is None or (OmegaConf.is_list(query) and not query):
        yield (
            f"search.query: not set ({run.where('search.query')})\n"
            '    fix: set it to a text, a file or a list of them, such as search.query="a red car"'
        )


def rule_trust(run: ComposedConfig) -> Iterator[str]:
    """Trusted packages are the user's own."""
    try:
        check_trust(run.get("trust"))
    except ConfigError as error:
        what, fix = str(error).splitlines()
        yield f"{what} ({run.where('trust')})\n{fix}"


Rule = Callable[[ComposedConfig], Iterator[str]]
RULES: tuple[Rule, ...] = (
    rule_values,
    rule_kinds,
    rule_tasks,
    rule_fusion,
    rule_targets,
    rule_schedule,
    rule_heads,
    rule_patches,
    rule_sizes,
    rule_trainer,
    rule_balance,
    rule_devices,
    rule_step_split,
    rule_duration,
    rule_max_time,
    rule_monitor,
    rule_callback_monitor,
    rule_files,
    rule_tables,
    rule_workers,
    rule_gpus,
    rule_accelerator,
    rule_precision,
    rule_sync_batchnorm,
    rule_sharded,
    rule_half_weights,
    rule_search,
    rule_trust,
    rule_common_folder,
    rule_nodes,
    rule_world_size,
    rule_run_dir,
)
