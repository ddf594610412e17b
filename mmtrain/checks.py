"""Is this configuration good? Every fault at once, before anything heavy is imported: what, where it was set, the mend.

First composition (Hydra's own messages, said in one form, with the nearest name), then rules between parts: one small
function each, listed in `RULES`.
"""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

MODES = ("fit", "test", "predict")
CONFIG_NAME = "train"


# ------------------------------------------------------------------ composition


def faults_of(config_dir: Path, extra_dir: str | None, overrides: list[str], *, multirun: bool) -> list[str]:
    """Everything that is wrong with a command line; empty when it is good.

    Args:
        config_dir: the project's YAML files.
        extra_dir: the user's own (`--config-dir`), looked at first.
        overrides: of the command line.
        multirun: whether commas mean a sweep; then every combination is looked at.
    """
    if extra_dir is not None and not Path(extra_dir).is_dir():
        return [f"--config-dir {extra_dir} is not a folder\n    name the folder that holds your YAML files"]
    composer = Composer(config_dir, extra_dir)
    try:
        faults: dict[str, None] = {}
        for combination in _combinations(overrides) if multirun else [overrides]:
            faults |= dict.fromkeys(composer.faults(combination))
        return list(faults)
    except OverrideParseException as error:
        return [
            f"{error.override}: not an override\n    write key=value, such as trainer.max_epochs=3, and quote what holds spaces or brackets"
        ]
    finally:
        GlobalHydra.instance().clear()


def _combinations(overrides: list[str]) -> list[list[str]]:
    """The runs of a sweep, as Hydra's basic sweeper makes them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parsed = OverridesParser.create().parse_overrides(overrides)
    if any(o.is_sweep_override() and not o.is_discrete_sweep() for o in parsed):
        return [[o.input_line or "" for o in parsed if not o.is_sweep_override()]]  # a range that a sweeper draws from
    return [list(job) for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None) for job in batch]


class Composer:
    """Composes configurations as the command would."""

    def __init__(self, config_dir: Path, extra_dir: str | None) -> None:
        path = create_config_search_path(str(config_dir))
        if extra_dir is not None:
            folder = f"file://{Path(extra_dir).resolve()}"
            path.prepend(provider="command-line", path=folder, anchor=SearchPathQuery(provider="schema"))
        GlobalHydra.instance().clear()
        self.hydra = Hydra.create_main_hydra2(task_name="train", config_search_path=path)
        self.config_dir = config_dir

    @property
    def _loader(self) -> ConfigLoaderImpl:
        loader = self.hydra.config_loader
        assert isinstance(loader, ConfigLoaderImpl)
        return loader

    def compose(self, overrides: list[str]) -> DictConfig:
        """The configuration with Hydra's own part, nothing resolved."""
        return self.hydra.compose_config(
            config_name=CONFIG_NAME, overrides=overrides, run_mode=RunMode.RUN, with_log_configuration=False
        )

    def faults(self, overrides: list[str]) -> list[str]:
        """What is wrong with these overrides, or with what they compose to."""
        try:
            cfg = self.compose(overrides)
        except OverrideParseException:
            raise
        except (HydraException, OmegaConfBaseException) as error:
            return self._blame(overrides) or [_first_lines(error)]
        HydraConfig.instance().set_config(cfg)
        unresolved = list(_unresolved(cfg, overrides))
        if unresolved:
            return unresolved
        run = Run(cfg=cfg, overrides=overrides, config_dir=self.config_dir)
        return [fault for rule in RULES for fault in rule(run)]

    def _blame(self, overrides: list[str]) -> list[str]:
        """Which overrides cannot be composed: first those that choose options, then values on top of the good ones."""
        try:
            self.compose([])
        except (HydraException, OmegaConfBaseException):
            return []  # not an override's fault, but a file's
        choices = [o for o in overrides if self._is_choice(o)]
        good: list[str] = []
        faults: list[str] = []
        for override in sorted(overrides, key=lambda o: o not in choices):
            try:
                self.compose([*good, override])
                good.append(override)
            except (HydraException, OmegaConfBaseException) as error:
                faults.append(self._explain(override, error, good))
        return faults

    def _is_choice(self, override: str) -> bool:
        key = override.split("=")[0].lstrip("+~").split("@")[0]
        return key in self.groups()

    def groups(self) -> list[str]:
        """Every group: encoder, encoder/image, ..."""
        found: list[str] = []
        waiting = [""]
        while waiting:
            parent = waiting.pop()
            for name in self._loader.list_groups(parent):
                path = f"{parent}/{name}" if parent else name
                if not path.startswith("hydra"):
                    found.append(path)
                    waiting.append(path)
        return sorted(found)

    def _explain(self, override: str, error: Exception, good: list[str]) -> str:
        key, _, value = override.partition("=")
        key = key.lstrip("+~")
        if self._is_choice(override):
            options = self._loader.get_group_options(key.split("@")[0], ObjectType.CONFIG)
            asked = [v.strip() for v in value.strip("[]").split(",")]
            unknown = next((v for v in asked if v not in options), value)
            near = difflib.get_close_matches(unknown, options, n=1)
            mend = f"did you mean {key}={near[0]}? " if near else ""
            return f"{override}: {key} has no option {unknown}\n    {mend}It has {', '.join(options)}"
        names = self._names(good)
        if key in names or override.startswith("+"):
            return f"{override}: {_first_lines(error)}"
        mend = _nearest(key, names)
        return f"{override}: there is no key {key}\n    {mend or 'see `python train.py --cfg job` for every key'}"

    def _names(self, good: list[str]) -> list[str]:
        """Every key of what the good overrides compose to, and every group."""
        return [*(key for key, _ in _own_values(self.compose(good))), *self.groups()]


def _values(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key below a node with its value, interpolations unresolved."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield f"{prefix}{name}", value
            yield from _values(value, f"{prefix}{name}.")


def _own_values(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """As `_values`, without Hydra's part."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    return _values({k: v for k, v in plain.items() if k != "hydra"})


def _nearest(key: str, names: list[str]) -> str:
    """The mend for a key that is not there: the same last word elsewhere, or one that is written nearly so."""
    last = key.split(".")[-1]
    same = [n for n in names if n.split(".")[-1] == last]
    near = difflib.get_close_matches(key, names, n=2, cutoff=0.75)
    found = list(dict.fromkeys([*near, *same]))[:3]
    return f"did you mean {' or '.join(found)}?" if found else ""


def _unresolved(cfg: DictConfig, overrides: list[str]) -> Iterator[str]:
    """Mandatory values that are missing and interpolations that lead nowhere."""
    values = dict(_own_values(cfg))
    missing = [key for key, value in values.items() if value == "???"]
    for key in missing:
        yield f"{key} is not set ({_origin(cfg, key, overrides)})\n    set {key}=..."
    for key in [] if missing else [k for k, v in values.items() if isinstance(v, str) and "${" in v]:
        try:
            OmegaConf.select(cfg, key, throw_on_resolution_failure=True)
        except OmegaConfBaseException as error:
            yield f"{key}: {_first_lines(error, 1)} ({_origin(cfg, key, overrides)})\n    mend the interpolation or set {key}=..."


def _first_lines(error: Exception, count: int = 2) -> str:
    return "\n    ".join(line.strip() for line in str(error).strip().splitlines()[:count])


def _origin(cfg: DictConfig, key: str, overrides: list[str]) -> str:
    """Where a value was set: the override, or the file of the option that was chosen."""
    for override in reversed(overrides):
        set_key = override.split("=")[0].lstrip("+~")
        if key == set_key or key.startswith(set_key + "."):
            return f"override {override}"
    path = key.replace(".", "/")
    choices: dict[str, str] = cfg.hydra.runtime.choices
    held = [group for group in choices if choices[group] and path.startswith(f"{group}/")]
    if not held:
        return "configs/train.yaml"
    group = max(held, key=len)
    option = choices[group]
    if "[" in str(option):
        option = path.removeprefix(f"{group}/").split("/")[0]
    return f"configs/{group}/{option}.yaml"


# --------------------------------------------------------- the run folder's own


def with_overrides_of_run(overrides: list[str]) -> tuple[list[str], list[str]]:
    """For mode=test and mode=predict: the overrides of the run that is tested, under those of this command line.

    Returns:
        The overrides to use, and what is wrong.
    """
    asked = dict(o.lstrip("+").split("=", 1) for o in overrides if "=" in o)
    if asked.get("mode") not in ("test", "predict"):
        return overrides, []
    folder = _folder_of_run(asked)
    if folder is None:
        return overrides, [
            f"mode={asked['mode']} needs a run\n    set run_dir to the folder of a training run, such as run_dir=outputs/2026-01-31/12-00-00"
        ]
    record = folder / "config.yaml"
    if not record.is_file():
        return overrides, [
            f"run_dir = {folder} is not the folder of a run: it has no config.yaml\n    set run_dir to the folder of a training run"
        ]
    before = yaml.safe_load(record.read_text(encoding="utf-8"))["overrides"]
    own = ("mode", "run_dir", "resume", "init_from")
    kept = [o for o in before if _name(o) not in own and _name(o) not in map(_name, overrides)]
    extra = [] if "run_dir" in asked else [f"run_dir={folder}"]
    return [*kept, *overrides, *extra], []


def _name(override: str) -> str:
    return override.split("=")[0].lstrip("+")


def _folder_of_run(asked: dict[str, str]) -> Path | None:
    if "run_dir" in asked:
        return Path(asked["run_dir"])
    named = next((asked[k] for k in ("resume", "init_from") if asked.get(k) not in (None, "null", "auto")), None)
    return Path(named).parent.parent if named else None


# ------------------------------------------------------------------------ rules


@dataclass(frozen=True)
class Run:
    """A composed configuration and how it was asked for."""

    cfg: DictConfig
    overrides: list[str]
    config_dir: Path

    def where(self, key: str) -> str:
        """Where a key was set."""
        return _origin(self.cfg, key, self.overrides)

    def nodes(self) -> Iterator[tuple[str, DictConfig]]:
        """Every node below the top that is a part, with its key."""
        waiting: list[tuple[str, Any]] = [(str(k), self.cfg[k]) for k in self.cfg if k != "hydra"]
        while waiting:
            key, node = waiting.pop(0)
            if isinstance(node, DictConfig):
                yield key, node
                waiting += [(f"{key}.{k!s}", node[k]) for k in node]


def rule_mode(run: Run) -> Iterator[str]:
    """The mode is one of those there are."""
    if run.cfg.mode not in MODES:
        near = difflib.get_close_matches(str(run.cfg.mode), MODES, n=1)
        yield f"mode = {run.cfg.mode} ({run.where('mode')})\n    set mode to {near[0] if near else ', '.join(MODES)}"


def rule_heads(run: Run) -> Iterator[str]:
    """Attention heads divide the width."""
    for key, node in run.nodes():
        if "dim" in node and "num_heads" in node and isinstance(node.dim, int) and isinstance(node.num_heads, int):
            dim, heads = node.dim, node.num_heads
            if heads < 1 or dim % heads:
                fitting = sorted(
                    sorted((h for h in range(1, dim + 1) if dim % h == 0), key=lambda h: abs(h - heads))[:2]
                )
                wider = -(-dim // heads) * heads if heads > 0 else dim
                yield (
                    f"{key}.dim = {dim} is not divisible by {key}.num_heads = {heads} ({run.where(f'{key}.num_heads')})\n"
                    f"    set {key}.num_heads to {' or '.join(map(str, fitting))}, or {key}.dim to {wider}"
                )


def rule_patches(run: Run) -> Iterator[str]:
    """Patches divide the picture."""
    for key, node in run.nodes():
        if "image_size" in node and "patch_size" in node and node.image_size % node.patch_size:
            fitting = [p for p in range(1, node.image_size + 1) if node.image_size % p == 0]
            near = min(fitting, key=lambda p: abs(p - node.patch_size))
            yield (
                f"{key}.image_size = {node.image_size} is not divisible by {key}.patch_size = {node.patch_size}"
                f" ({run.where(f'{key}.patch_size')})\n    set {key}.patch_size to {near}"
            )


def rule_counts(run: Run) -> Iterator[str]:
    """What counts something is a whole number of at least one."""
    for key in ("data.batch_size", "data.eval_batch_size", "trainer.accumulate_grad_batches"):
        value = OmegaConf.select(run.cfg, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            yield f"{key} = {value} ({run.where(key)})\n    set {key} to a whole number of at least 1"


def rule_step_split(run: Run) -> Iterator[str]:
    """Every device and micro-batch of a step gets a sample."""
    devices = run.cfg.trainer.devices
    parts = (devices if isinstance(devices, int) and devices > 0 else 1) * run.cfg.trainer.accumulate_grad_batches
    if isinstance(run.cfg.data.batch_size, int) and 0 < run.cfg.data.batch_size < parts:
        yield (
            f"data.batch_size = {run.cfg.data.batch_size} ({run.where('data.batch_size')}) is split over {parts} parts"
            f" (trainer.devices x trainer.accumulate_grad_batches)\n    set data.batch_size to at least {parts}"
        )


def rule_tasks(run: Run) -> Iterator[str]:
    """There is a task, and what it reads and learns exists."""
    if not run.cfg.task:
        yield f"no task is chosen ({run.where('task')})\n    set task, such as task=[contrastive]"
    for name, task in run.cfg.task.items():
        reads = [task.reads] if "reads" in task and task.reads != "fused" else []
        pair = list(task.modalities) if "modalities" in task else []
        for modality in [*reads, *pair]:
            for place in ("encoder", "data.inputs"):
                known = list(OmegaConf.select(run.cfg, place))
                if modality not in known:
                    key = f"task.{name}.{'reads' if modality in reads else 'modalities'}"
                    near = difflib.get_close_matches(modality, [*known, "fused"], n=1) or known[:1]
                    yield f"{key} names {modality}, but {place} has {', '.join(known)} ({run.where(key)})\n    did you mean {near[0]}?"
                    break
        if "target" in task and task.target not in run.cfg.data.targets:
            known = list(run.cfg.data.targets)
            yield f"task.{name}.target = {task.target}, but data.targets has {', '.join(known)} ({run.where(f'task.{name}.target')})\n    set task.{name}.target to one of them"


def rule_files(run: Run) -> Iterator[str]:
    """Files and folders that are named exist."""
    root = run.cfg.data.root if "root" in run.cfg.data else None
    if root is not None and not Path(root).expanduser().is_dir():
        yield f"data.root = {root} is not a folder ({run.where('data.root')})\n    set data.root to the folder that holds train.jsonl (or .csv, .parquet ...)"
    for key in ("resume", "init_from"):
        value = run.cfg[key]
        if value is not None and not (key == "resume" and value == "auto") and not Path(value).is_file():
            yield f"{key} = {value} does not exist ({run.where(key)})\n    name a checkpoint, such as RUN/checkpoints/last.ckpt"


def rule_duration(run: Run) -> Iterator[str]:
    """The run ends, because the schedule needs to know when."""
    if run.cfg.trainer.max_epochs in (None, -1) and run.cfg.trainer.max_steps in (None, -1):
        yield f"neither trainer.max_epochs nor trainer.max_steps is set ({run.where('trainer.max_epochs')})\n    set trainer.max_epochs, such as trainer.max_epochs=20"


Rule = Callable[[Run], Iterator[str]]
RULES: tuple[Rule, ...] = (
    rule_mode,
    rule_heads,
    rule_patches,
    rule_counts,
    rule_step_split,
    rule_tasks,
    rule_files,
    rule_duration,
)
