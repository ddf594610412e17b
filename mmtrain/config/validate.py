"""Check a configuration before anything heavy is imported. All faults are reported at once, with their origin and fix.

First the configuration is composed, with Hydra's messages in one form and the nearest name. Then rules.py checks it.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmtrain.config import suggestions
from mmtrain.config.compose import ConfigComposer, config_dir, fill_auto, keep_last_overrides, key_of
from mmtrain.config.instantiate import check_trust
from mmtrain.config.moved import update_targets
from mmtrain.config.provenance import ComposedConfig, Source
from mmtrain.config.renamed import current_key, may_be_old, update_keys, without_hydra
from mmtrain.config.rules import NEEDED, OF_A_RUN, RULES, rule_complete
from mmtrain.config.rules_sweep import combinations, faults_of_sweeper
from mmtrain.config.run_config import read_run_config, recorded_overrides
from mmtrain.errors import ConfigError

# what composing raises for a wrong override or file; the last three if a group has a value such as null or [null], or
# if a file does not contain a mapping
ComposeError = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, OSError)


def faults_of(config_dir: Path, extra_dir: str | None, overrides: list[str], *, multirun: bool) -> list[str]:
    """Return every fault of a command line; none if it is valid.

    Args:
        config_dir: the project's YAML files.
        extra_dir: the user's own (`--config-dir`), which come after those of the project.
        overrides: of the command line.
        multirun: whether commas mean a sweep; then every combination is checked.
    """
    if extra_dir is not None and not Path(extra_dir).is_dir():
        return [f"--config-dir {extra_dir}: not a folder\n    fix: name the folder that contains your YAML files"]
    malformed = list(suggestions.split_words(overrides, map(_is_override, overrides)))
    if malformed:
        return [f"{typed}: {fault}" for typed, fault in malformed]
    overrides, _ = keep_last_overrides(overrides)
    composer = Validator(config_dir, extra_dir)
    try:
        if not multirun:
            return composer.faults(overrides)
        return composer.faults_of_sweep(overrides)
    finally:
        GlobalHydra.instance().clear()


def with_current_keys(config_dir: Path, extra_dir: str | None, overrides: list[str]) -> tuple[list[str], list[str]]:
    """The overrides of a command line with today's names of keys and values, and a note for each that had old ones.

    Args:
        config_dir: the project's YAML files.
        extra_dir: the user's own (`--config-dir`).
        overrides: of the command line; of a sweep they have several values.
    """
    if not any(map(may_be_old, overrides)) or (extra_dir is not None and not Path(extra_dir).is_dir()):
        return overrides, []
    try:
        return Validator(config_dir, extra_dir).composing.with_current_keys(overrides)
    finally:
        GlobalHydra.instance().clear()


# Groups that files of other groups are made of; users do not choose from them by `group=option`.
PAIRS = ("clip", "clap", "open_clip")  # options of encoder with the weights of a complete pair
INTERNAL_GROUPS = ("part", "tables", "tuning")


def help_text(config_dir: Path, extra_dir: str | None) -> str:
    """Text of `--help`: the template of train.yaml with every group that a person chooses from, and its options.

    Hydra's own version copies its plugins for each group, which takes a second.
    """
    composing = Validator(config_dir, extra_dir).composing
    shown = [group for group in composing.groups if group not in INTERNAL_GROUPS]
    groups = "".join(f"{group}: {', '.join(sorted(composing.options(group)))}\n" for group in shown)
    template = str(composing.file("train").content["hydra"]["help"]["template"])
    return template.replace("$APP_CONFIG_GROUPS", groups)


def _is_override(text: str) -> bool:
    try:
        (parsed,) = OverridesParser.create().parse_overrides([text])
    except OverrideParseException:
        return False
    return parsed.key_or_group != ""


class Validator:
    """Composes configurations as the command does."""

    def __init__(self, config_dir: Path, extra_dir: str | None) -> None:
        path = create_config_search_path(str(config_dir))
        self.shown = {str(config_dir): "configs"}
        if extra_dir is not None:
            folder = str(Path(extra_dir).resolve())
            path.prepend(provider="command-line", path=f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
            shown = extra_dir.rstrip("/")
            self.shown.setdefault(folder, "./configs" if shown == "configs" else shown)
        self.composing = ConfigComposer(path)
        self.made: dict[tuple[str, ...], DictConfig | Exception] = {}
        self.seen: dict[tuple[str, ...], ComposedConfig] = {}

    def faults_of_sweep(self, overrides: list[str]) -> list[str]:
        """Faults of all runs of a sweep, each once."""
        plain = [o for o in overrides if not _is_sweep(o)]
        try:
            sweeper = self.compose(self.composing.with_current_keys(plain)[0]).hydra.sweeper
        except ComposeError:
            return self.faults(plain)
        if faults := list(faults_of_sweeper(self.composing, sweeper, overrides)):
            return faults
        runs = combinations(self.composing, sweeper, overrides)
        return list(dict.fromkeys(fault for run in runs for fault in self.faults(run)))

    def compose(self, overrides: list[str]) -> DictConfig:
        """The configuration with Hydra's own part, unresolved. Each is composed once and must not be changed."""
        key = tuple(overrides)
        if key not in self.made:
            try:
                cfg = self.composing.compose(overrides)
                update_targets(cfg)  # the command itself reports old paths
                update_keys(cfg, overrides)
                fill_auto(cfg)
                self.made[key] = cfg
            except ComposeError as error:
                self.made[key] = error
        made = self.made[key]
        if isinstance(made, Exception):
            raise made
        return made

    def faults(self, overrides: list[str]) -> list[str]:
        """Faults of these overrides, or of the configuration that they compose."""
        overrides, _ = self.composing.with_current_keys(overrides)
        try:
            cfg = self.compose(overrides)
        except ComposeError as error:
            return self._failing_overrides(overrides) or [_error_message(error)]
        if any(self._has_unknown_group(o) for o in overrides):
            return self._failing_overrides(overrides)
        if faults := [*self._without_effect(overrides), *self._meant_as_choices(overrides)]:
            return faults
        HydraConfig.instance().set_config(cfg)
        composed = self._composed(overrides)
        faults = list(self._hidden(composed)) or list(rule_complete(composed)) or list(_unresolved(composed))
        return faults or [fault for rule in RULES for fault in rule(composed)]

    def _without_effect(self, overrides: list[str]) -> Iterator[str]:
        """Overrides without effect, because a later one sets or removes the node that contains them.

        Options of groups are chosen first, in any position, and do not replace a value.
        """
        for place, earlier in enumerate(overrides):
            key, chooses = key_of(earlier), self.composing.is_choice(earlier)
            for later in overrides[place + 1 :]:
                same = key == key_of(later) if chooses else f"{key}.".startswith(f"{key_of(later)}.")
                if later != earlier and same and chooses == self.composing.is_choice(later):
                    yield f"{earlier}: no effect, because {later} replaces it\n    fix: remove one of them"
                    break

    def _meant_as_choices(self, overrides: list[str]) -> Iterator[str]:
        """An option's name that is given to a group of keys in another spelling than Hydra's."""
        groups = self.composing.groups
        for override in overrides:
            key, _, value = override.lstrip("+").partition("=")
            group = key.replace(".", "/")
            if group == key or group not in groups or not re.fullmatch(r"[A-Za-z]\w*", value):
                continue
            options = self.composing.options(group)
            near = [value] if value in options else difflib.get_close_matches(value, options, n=1)
            if near:
                yield f"{override}: {key} is a group of keys\n    fix: choose an option of it with {group}={near[0]}"
            elif value not in ("null", "true", "false"):
                description = f"the options are {', '.join(options)}"
                yield (
                    f"{override}: {key} is a group of keys\n    fix: choose an option of it with {group}=NAME;"
                    f" {description}"
                )

    def _hidden(self, run: ComposedConfig) -> Iterator[str]:
        """Files of the user's folder that Hydra would not read, because the project has one of the same name."""
        names = [s.file.removeprefix("configs/") for s in run.sources if s.file.startswith("configs/")]
        for folder, shown in self.shown.items():
            for name in [n for n in names if shown != "configs" and Path(folder, n).is_file()]:
                yield f"{shown}/{name}: never read, because configs/{name} comes first\n    fix: give it another name"

    def _composed(self, overrides: list[str]) -> ComposedConfig:
        """What overrides compose to, with the origin of each value; computed once."""
        key = tuple(overrides)
        if key not in self.seen:
            self.seen[key] = self._with_origins(self.compose(overrides), overrides)
        return self.seen[key]

    def _with_origins(self, cfg: DictConfig, overrides: list[str]) -> ComposedConfig:
        choices = [o for o in overrides if self.composing.is_choice(o)]
        plain = OmegaConf.to_container(cfg, resolve=False)
        assert isinstance(plain, dict)
        return ComposedConfig(
            cfg=cfg,
            raw=dict(_values({k: v for k, v in plain.items() if k != "hydra"})),
            sources=list(self._sources(overrides)),
            set_by={key_of(o): o for o in overrides if o not in choices},
            chosen_by={key_of(o): o for o in choices},
        )

    def _sources(self, overrides: list[str]) -> Iterator[Source]:
        for path, package in self.composing.files(overrides):
            yield replace(self._source(path), package=package)

    def _source(self, path: str) -> Source:
        """A file at the package that it declares."""
        file = self.composing.file(path)
        return Source(f"{self.shown.get(file.folder, file.folder)}/{path}.yaml", file.package, file.content)

    def _failing_overrides(self, overrides: list[str]) -> list[str]:
        """Which overrides cannot be composed: first options of groups, then values on top of the valid ones."""
        try:
            self.compose([])
        except ComposeError:
            return []  # the fault is in a file
        choices = [o for o in overrides if self.composing.is_choice(o)]
        good: list[str] = []
        faults: list[str] = []
        for override in sorted(overrides, key=lambda o: o not in choices):
            if self._has_unknown_group(override):
                faults.append(self._explain_group(override, key_of(override)))
                continue
            try:
                self.compose([*good, override])
                good.append(override)
            except ComposeError as error:
                faults.append(self._explain(override, error, good))
        return faults + (self.faults(good) if faults else [])  # the valid overrides are checked, too

    def _has_unknown_group(self, override: str) -> bool:
        """Whether it chooses from a group that does not exist. With a + Hydra would create a key."""
        return "/" in key_of(override) and not self.composing.is_choice(override)

    @cached_property
    def _options(self) -> dict[str, list[str]]:
        """The options of every group."""
        return {group: self.composing.options(group) for group in self.composing.groups}

    def _explain(self, override: str, error: Exception, good: list[str]) -> str:
        key, (_, _, value) = key_of(override), override.partition("=")
        if isinstance(error, yaml.YAMLError):
            return f"{override}: {_error_message(error)}"
        if _is_sweep(override):
            listed = f", or write '{key}=[{value}]' for a list" if self._takes_list(key) and "(" not in value else ""
            return f"{override}: several values are a sweep\n    fix: add -m to run each{listed}"
        if self.composing.is_choice(override):
            return self._explain_choice(override, key, value, error)
        names = self._names(good)
        if key in names and override.startswith("+"):
            return f"{override}: {key} already exists\n    fix: set it with {key}={value}"
        if key in names or override.startswith("+"):
            return f"{override}: {_error_message(error)}"
        foreign = suggestions.suggest_key(key, value, self._options)
        same = [name for name in names if name.rpartition(".")[2] == key]
        fix = self._owner_of_key(key) if "." in key else ""
        if key.startswith("data.columns."):
            fix = f"write {foreign}" if foreign else self._for_column(key, value, names) or fix
        if override.startswith("~") and fix:
            fix = f"remove {override}, because nothing of that name is chosen"
        if key == "data.root":
            fix = f"write {foreign} for your own tables\n    {fix}"
        if key.startswith("hydra."):
            part = self.compose(good).hydra
            known = [f"hydra.{name}" for name, _ in _values(OmegaConf.to_container(part, resolve=False))]
            near = _nearest(key, known) or "`--cfg hydra` shows every key"
            return f"{override}: there is no key {key}\n    fix: {near}"
        fix = fix or (f"write {foreign}" if foreign and not same else _nearest(key, names))
        return f"{override}: there is no key {key}\n    fix: {fix or '`python train.py --cfg job` shows every key'}"

    def _for_column(self, key: str, value: str, names: Sequence[str]) -> str:
        """What to write for the column of an input or target that the user has added, or has to add."""
        name = key.rpartition(".")[2]
        parts = {".".join(known.split(".")[:3]) for known in names}
        if not {f"data.inputs.{name}", f"data.targets.{name}"} & parts:
            columns = {known.rpartition(".")[2]: known for known in names if known.startswith("data.columns.")}
            similar = [columns[known] for known in difflib.get_close_matches(name, columns, n=2)]
            near = f"did you mean {' or '.join(similar)}?" if similar else ""
            added = f"+target@data.targets.{name}=class +{key}={value} task.classification.target={name}"
            return "\n    ".join(filter(None, [near, f"add a class to predict with {added}"]))
        default_note = f"; by default, the column {name} is read" if value == name else ""
        return f"write +{key}={value}{default_note}"

    def _takes_list(self, key: str) -> bool:
        """Whether a key accepts several options, or a list."""
        cfg = self.compose([])
        many = self.composing.is_choice(f"{key}=") and key not in cfg.hydra.runtime.choices
        return many or OmegaConf.is_list(OmegaConf.select(cfg, key, throw_on_resolution_failure=False))

    def _explain_group(self, override: str, key: str) -> str:
        groups = self.composing.groups
        near = difflib.get_close_matches(key, groups, n=1)
        fix = f"did you mean {near[0]}? " if near else ""
        return f"{override}: there is no group {key}\n    fix: {fix}the groups are {', '.join(groups)}"

    def _explain_choice(self, override: str, key: str, value: str, error: Exception) -> str:
        options = self.composing.options(key.split("@")[0])
        description = f"options are {', '.join(options) or 'none'}"
        if override.startswith("~") or not _names_options(override):  # [] chooses none of several options
            many = key not in self.compose([]).hydra.runtime.choices
            fix = f"remove the group with ~{key}" if key not in NEEDED else f"choose one with {key}=NAME"
            fix = f"choose none with {key}=[]" if many else fix
            if override == f"~{key}" and "/" in key:  # a recipe chooses the options inside the group
                fix = f"remove the group with ~{key.replace('/', '.')}"
            what = "the group cannot be removed this way" if override.startswith("~") else f"{value} is not an option"
            return f"{override}: {what}\n    fix: {fix}; the {description}"
        unknown = [v for v in (v.strip() for v in value.strip("[]").split(",")) if v not in options]
        if not unknown and override.startswith("+"):
            return f"{override}: an option of {key} is already chosen\n    fix: choose another with {key}={value}"
        if not unknown:
            return f"{override}: {_error_message(error)}"
        near = suggestions.nearest(unknown[0], options)
        other = suggestions.suggest_option(key, unknown[0], self._options)
        fixes = [f"did you mean {key}={near[0]}? The {description}", other] if near else [other, f"the {description}"]
        first, *others = filter(None, fixes)
        return "\n    ".join([f"{override}: {key} has no option {unknown[0]}", f"fix: {first}", *others])

    def _names(self, good: list[str]) -> list[str]:
        """Every key that the valid overrides compose to, and every group."""
        return [*self._composed(good).raw, *self.composing.groups]

    def _owner_of_key(self, key: str) -> str:
        """The fix for a key that only another option of its group has."""
        for group in self.composing.groups:
            if not key.startswith(group.replace("/", ".") + "."):
                continue
            options = self.composing.options(group)
            having = [option for option in options if self._source(f"{group}/{option}").get(key) is not None]
            if having:
                if key in ("data.train", "data.val", "data.test"):
                    own = "tables of your own: data=files data.train=FILE data.val=FILE data.test=FILE"
                    return f"choose {group}={', '.join(having)}, which has this key; {own}"
                return f"choose {group}={', '.join(having)}, which has this key"
        return ""


def _names_options(override: str) -> bool:
    (parsed,) = OverridesParser.create().parse_overrides([override])
    value = parsed.value()
    return all(isinstance(name, str) for name in (value if isinstance(value, list) else [value]))


def _is_sweep(override: str) -> bool:
    (parsed,) = OverridesParser.create().parse_overrides([override])
    return parsed.is_sweep_override()


def _values(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key below a node with its value."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield f"{prefix}{name}", value
            yield from _values(value, f"{prefix}{name}.")


def _nearest(key: str, names: list[str]) -> str:
    """The fix for an unknown key: the same last word elsewhere, or similar keys."""
    last = key.split(".")[-1]
    others = [n for n in names if not key.startswith(f"{n}.")]
    same = [n for n in others if n.split(".")[-1] == last]
    near = difflib.get_close_matches(key, others, n=2, cutoff=0.75)
    result = list(dict.fromkeys([*near, *same]))[:3]
    return f"did you mean {' or '.join(result)}?" if result else ""


def _unresolved(run: ComposedConfig) -> Iterator[str]:
    """Mandatory values that are missing, and interpolations that do not resolve, each reported once at its origin."""
    missing = [k for k, v in run.raw.items() if v == "???" or (v is None and run.default(k) == "???")]
    for key in missing:
        folder = "DIR, the folder with train.jsonl (or train.csv, train.parquet ...)"
        own = key == "data.root" and run.get("data.source._target_") == "mmtrain.data.sources.files.existing_folder"
        yield f"{key}: not set ({run.where(key)})\n    fix: set {key}={folder if own else '...'}"
    failing: dict[str, str] = {}
    for key in [] if missing else [k for k, v in run.raw.items() if isinstance(v, str) and "${" in v]:
        try:
            OmegaConf.select(run.cfg, key, throw_on_resolution_failure=True)
        except OmegaConfBaseException as error:
            failing[key] = _error_message(error).splitlines()[0]
    reads = {key: re.findall(r"\$\{([\w.]+)\}", run.raw[key]) for key in failing}
    first = [key for key in failing if not any(name in failing for name in reads[key])]
    circle = [key for key in failing if any(key in names for names in reads.values())]
    for key in first or circle:
        of_what_it_reads = run.where(key)
        blamed = key not in run.set_by and of_what_it_reads.startswith("override ")
        fix = f"remove {of_what_it_reads.removeprefix('override ')}" if blamed else "correct the interpolation"
        where = f"override {run.set_by[key]}" if key in run.set_by else run.file_of(key)
        yield f"{key}: {failing[key]} ({of_what_it_reads if blamed else where})\n    fix: {fix}, or set {key}=..."


def _error_message(error: Exception) -> str:
    """The first lines of an error with its file and line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: not YAML: {error.problem}\n    fix: correct that line"
    lines = [line.strip() for line in (str(error) or str(error.__cause__)).splitlines() if line.strip()][:2]
    if isinstance(error, MissingConfigException):
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        near = difflib.get_close_matches(name, error.options or [], n=1)
        fix = f"did you mean {group}/{near[0]}?" if near else "correct the defaults list that names it"
        lines = [lines[0], f"fix: {fix}"]
    return "\n    ".join(lines)


# --------------------------------------------------------- overrides of a run folder


def with_overrides_of_run(overrides: list[str], extra_dir: str | None = None) -> tuple[list[str], list[str]]:
    """Add the overrides of a trained run below those of this command line, for modes that use a trained run.

    Overrides inside a group for which this command line chooses an option are omitted, because the option may not have
    these keys. Overrides that do not describe the model and the data are omitted, too; see `mmtrain.config.run_config`.

    Args:
        overrides: of the command line.
        extra_dir: the user's own YAML files (`--config-dir`), from which the run may choose options.

    Returns:
        The overrides to use, and the faults.
    """
    requested = {key_of(o): o.partition("=")[2].strip("'\"") for o in overrides}
    mode = requested.get("mode")
    if mode not in OF_A_RUN:
        return overrides, []
    folder = folder_of_run(overrides)
    is_new = folder is None or not (folder / "config.yaml").is_file()
    if is_new and mode in ("test", "predict") and requested.get("encoder") in PAIRS:  # the pair as it is
        return [*([] if "task" in requested else ["task=[contrastive]"]), *overrides], []
    fix = "fix: set run_dir to the folder of a training run, such as run_dir=outputs/2026-01-31/12-00-00"
    if folder is None:
        return overrides, [f"mode={mode}: needs a trained run\n    {fix}"]
    record = folder / "config.yaml"
    if not record.is_file():
        return overrides, [
            f"run_dir={folder}: not the folder of a run, because it has no config.yaml (mode={mode})\n    {fix}"
        ]
    configs = [config_dir(), *([] if extra_dir is None else [Path(extra_dir)])]
    try:
        cfg = read_run_config(folder)
    except ConfigError as error:
        return overrides, [f"{str(error).splitlines()[0]}\n    {fix}"]
    try:
        trust = check_trust(_trusted(overrides))
    except ConfigError as error:
        return overrides, [str(error)]
    plain = without_hydra(cfg)
    keys = [current_key(key, plain) for key in requested]
    kept, faults = recorded_overrides(cfg, folder, requested=keys, configs=configs, trust=trust)
    extra = [] if "run_dir" in requested else [f"run_dir={folder}"]
    return [*kept, *overrides, *extra], faults


def _trusted(overrides: list[str]) -> Any:
    """The value of `trust=`, which is needed before anything is composed."""
    messages = [o for o in overrides if key_of(o) == "trust" and _is_override(o)]
    return OverridesParser.create().parse_overrides(messages[-1:])[0].value() if messages else []


def folder_of_run(overrides: list[str]) -> Path | None:
    """The run folder that a command line names, directly or with a checkpoint."""
    requested = {key_of(o): o.partition("=")[2].strip("'\"") for o in overrides}
    if "run_dir" in requested:
        return Path(requested["run_dir"])
    named = next(
        (requested[k] for k in ("resume", "init_from") if requested.get(k) not in (None, "null", "auto")), None
    )
    return Path(named).parent.parent if named else None
