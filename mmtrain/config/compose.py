"""Composes configurations as Hydra does, but faster: options are composed once, and each file is read once."""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from hydra._internal import defaults_list as hydra_defaults
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.core_plugins import file_config_source, importlib_resources_config_source
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Transformer
from hydra.core.utils import JobRuntime
from hydra.errors import ConfigCompositionException, HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmtrain.config.renamed import current_overrides, report, without_hydra

CONFIG_NAME = "train"
# what `auto` means for an input whose encoder has no pretrained weights: pixels, tokens, a probability, Hz, seconds
INPUTS_FROM_SCRATCH: Mapping[str, Any] = {
    "size": 64,
    "max_length": 32,
    "word_dropout": 0.3,
    "sample_rate": 16000,
    "max_seconds": 10.0,
}
# encoders whose architecture has sizes of its own, also with random weights
OWN_SIZES = ("mmtrain.encoders.image.open_clip.", "mmtrain.encoders.text.open_clip.")
# encoders that can be a tower of a pretrained pair; a user's own encoder can be one, too
TOWERS = (*OWN_SIZES, "mmtrain.encoders.image.clip.", "mmtrain.encoders.text.clip.", "mmtrain.encoders.audio.clap.")


def config_dir() -> Path:
    """The folder of YAML files: inside the package if it was installed from a wheel, next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


class _ParsedFiles:
    """Parsed YAML files of this process. A file is parsed again after its bytes have changed.

    Hydra changes what it gets. Therefore the first result is handed out. The second one is kept, and copied from then
    on. A command reads most files once, and to copy them takes as long as a tenth of its checks.
    """

    def __init__(self) -> None:
        self._parsed: dict[tuple[str, str, str], tuple[bytes, ConfigResult | None]] = {}

    def load(
        self, source: ConfigSource, path: str, read: Callable[[], bytes], parse: Callable[[str], ConfigResult]
    ) -> ConfigResult:
        """Return the parsed file. The caller may change it.

        Args:
            source: the folder or package of the search path.
            path: the file in it, such as `encoder/text/bert`.
            read: returns the bytes of the file.
            parse: Hydra's own method. It reports the fault of a file that cannot be read.
        """
        try:
            content = read()
        except (OSError, ImportError):
            return parse(path)
        key = (source.path, source.provider, path)
        known = self._parsed.get(key)
        if known is None or known[0] != content:
            self._parsed[key] = (content, None)
            return parse(path)
        kept = known[1] or parse(path)
        self._parsed[key] = (content, kept)
        return copy.deepcopy(kept)


_PARSED = _ParsedFiles()


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's source of the same name, but each file is parsed only once. Hydra's registry compares the names."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the content of the file with its metadata."""
        file = Path(self.path, self._normalize_file_name(config_path))
        return _PARSED.load(self, config_path, file.read_bytes, super().load_config)


class ImportlibResourcesConfigSource(importlib_resources_config_source.ImportlibResourcesConfigSource):
    """The same for files of a package, such as Hydra's own."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the content of the file with its metadata."""
        name = self._normalize_file_name(config_path)
        return _PARSED.load(
            self, config_path, lambda: resources.files(self.path).joinpath(name).read_bytes(), super().load_config
        )


_all_choices = hydra_defaults._create_interpolation_map


def _choices_for_interpolations(
    overrides: hydra_defaults.Overrides, defaults_list: list[InputDefault], self_added: bool
) -> DictConfig:
    """Choices that a defaults list may refer to. Hydra converts them for each file, a third of the composing time.

    Only lines such as `fusion: ${balance}` need them, and few lists have one.
    """
    if any(default.is_interpolation() for default in defaults_list):
        return _all_choices(overrides, defaults_list, self_added)
    return DictConfig({})


_load_sweep_config = ConfigLoaderImpl.load_sweep_config


def _load_sweep_config_with_current_keys(
    loader: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]
) -> DictConfig:
    """The configuration of one run of a sweep, whose search space may have old names of keys."""
    common = [str(override) for override in master_config.hydra.overrides.hydra]
    name = master_config.hydra.job.config_name

    def trees(overrides: Sequence[str]) -> Iterator[dict[str, Any]]:
        yield without_hydra(loader.load_configuration(name, [*common, *overrides], RunMode.RUN))

    overrides, notes = current_overrides(sweep_overrides, trees)
    for note in notes:
        report(note)
    return _load_sweep_config(loader, master_config, overrides)


SourcesRegistry.instance().types.update(file=FileConfigSource, pkg=ImportlibResourcesConfigSource)
hydra_defaults._create_interpolation_map = _choices_for_interpolations
ConfigLoaderImpl.load_sweep_config = _load_sweep_config_with_current_keys  # type: ignore[method-assign,assignment]


_Stamp = tuple[str, int, int, int]


@dataclass(frozen=True)
class File:
    """A YAML file, unresolved.

    Attributes:
        folder: of the search path, which contains it.
        package: the key below which its content belongs, as the file declares it.
        content: without its defaults list, unresolved.
    """

    folder: str
    package: str
    content: Mapping[str, Any]


@dataclass
class _Options:
    """The composition of the chosen options, without values of overrides.

    Attributes:
        cfg: must be copied before it is changed.
        files: path and package of each file, in the order of composition.
        read: by path, the files of the search path that were read.
        stamps: of the files of the search path, before they were read.
    """

    cfg: DictConfig
    files: list[tuple[str, str]]
    read: dict[str, File]
    stamps: tuple[_Stamp, ...]


class _LastOptions:
    """The latest compositions of this process, valid until a file of the search path is added, changed or deleted."""

    SIZE = 16

    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], _Options] = {}

    def find(self, key: tuple[str, ...], stamps: tuple[_Stamp, ...]) -> _Options | None:
        """Return the composition of these options; None if it is not there, or if a file has changed since."""
        result = self._kept.pop(key, None)
        if result is None or result.stamps != stamps:
            return None
        self._kept[key] = result  # at the end, so that it is dropped last
        return result

    def keep(self, key: tuple[str, ...], options: _Options) -> None:
        """Store a composition, and drop the one with the oldest use."""
        if len(self._kept) == self.SIZE:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = options


_LAST = _LastOptions()


def _stamps(folder: str) -> Iterator[_Stamp]:
    """Path, time, size and inode of every file below a folder; empty if the folder does not exist."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir():
            yield from _stamps(entry.path)
        else:
            stat = entry.stat()
            yield entry.path, stat.st_mtime_ns, stat.st_size, stat.st_ino


class _Repository(ConfigRepository):
    """Hydra's repository, which also records the files that it reads."""

    def __init__(self, search_path: ConfigSearchPath) -> None:
        self.read: dict[str, File] = {}
        super().__init__(search_path)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Repository":
        return copy.copy(self)  # Hydra copies it for each reading, to give it other sources

    def load_config(self, config_path: str) -> ConfigResult | None:
        loaded = super().load_config(config_path)
        if loaded is not None and config_path not in self.read and OmegaConf.is_config(loaded.config):
            content = OmegaConf.to_container(loaded.config, resolve=False)
            self.read[config_path] = File(
                folder=loaded.path.removeprefix("file://"),
                package=loaded.header.get("package") or config_path.rpartition("/")[0].replace("/", "."),
                content={str(k): v for k, v in content.items()} if isinstance(content, dict) else {},
            )
        return loaded


class _Loader(ConfigLoaderImpl):
    """Hydra's loader, which also records the files of the last configuration."""

    repository: _Repository

    def __init__(self, search_path: ConfigSearchPath) -> None:
        super().__init__(search_path)
        self.repository = _Repository(search_path)
        self.last: list[ResultDefault] = []

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        self.last = defaults
        return super()._compose_config_from_defaults_list(defaults, repo)


class ConfigComposer:
    """Composes configurations from the folders of a search path."""

    def __init__(self, search_path: ConfigSearchPath) -> None:
        self._loader = _Loader(search_path)
        self._paths = [str(element.path) for element in search_path.get_path()]
        self._composed: dict[tuple[str, ...], _Options] = {}
        GlobalHydra.instance().clear()
        GlobalHydra.instance().initialize(Hydra(task_name=CONFIG_NAME, config_loader=self._loader))

    def parsed(self, overrides: list[str]) -> list[Override]:
        """Overrides, parsed by Hydra."""
        return OverridesParser.create(self._loader).parse_overrides(overrides)

    def compose(self, overrides: list[str]) -> DictConfig:
        """Compose a configuration with Hydra's own part, unresolved.

        Raises:
            HydraException: or an error of OmegaConf or YAML, if an override or a file is wrong.
        """
        values = [o for o in overrides if not self._chooses(o)]
        parsed = self.parsed(values)
        self._loader.validate_sweep_overrides_legal(parsed, run_mode=RunMode.RUN, from_shell=True)
        cfg = copy.deepcopy(self._options(overrides).cfg)
        self._loader._apply_overrides_to_config(parsed, cfg)
        cfg.hydra.overrides.task = [o for o in overrides if not o.lstrip("+~").startswith("hydra")]
        return cfg

    def with_current_keys(self, overrides: list[str]) -> tuple[list[str], list[str]]:
        """The overrides with today's names of keys and values, and a note for each that had old ones.

        An override that cannot be parsed or composed is left as it is.
        """
        current, notes = current_overrides(overrides, self._trees)
        return (keep_last_overrides(current)[0] if notes else current), notes

    def _trees(self, overrides: Sequence[str]) -> Iterator[dict[str, Any]]:
        """What overrides compose to; of a sweep, each option of a group in turn."""
        try:
            swept = [o for o in self.parsed(list(overrides)) if o.is_sweep_override()]
        except HydraException:
            return
        fixed = [o for o in overrides if o not in {sweep.input_line for sweep in swept}]
        chosen = [(o.get_key_element(), o) for o in swept if self.is_choice(o.input_line or "")]
        options = [[f"{key}={name}" for name in o.sweep_iterator(transformer=Transformer.encode)] for key, o in chosen]
        first = [names[0] for names in options]
        others = [[*first[:i], name, *first[i + 1 :]] for i, names in enumerate(options) for name in names[1:]]
        for choices in (first, *others):
            try:
                yield without_hydra(self.compose([*fixed, *choices]))
            except (HydraException, OmegaConfBaseException):
                continue

    def files(self, overrides: list[str]) -> list[tuple[str, str]]:
        """Path and package of the files of a configuration, in the order of composition."""
        return self._options(overrides).files

    def file(self, path: str) -> File:
        """Return a file of the search path, such as `encoder/text/bert`."""
        if path not in self._loader.repository.read:
            self._loader.repository.load_config(path)
        return self._loader.repository.read[path]

    def _options(self, overrides: list[str]) -> _Options:
        choices = tuple(o for o in overrides if self._chooses(o))
        if choices not in self._composed:
            key = (str(Path.cwd()), JobRuntime().get("name"), *self._paths, "", *choices)  # the first two are in cfg
            folders = [path.removeprefix("file://") for path in self._paths if path.startswith("file://")]
            stamps = tuple(sorted(stamp for folder in folders for stamp in _stamps(folder)))
            options = _LAST.find(key, stamps)
            if options is None:
                options = self._compose_options(choices, stamps)
                if not options.cfg.hydra.searchpath and not options.cfg.hydra.job.env_copy:
                    _LAST.keep(key, options)
            self._loader.repository.read.update(options.read)
            self._composed[choices] = options
        return self._composed[choices]

    def _compose_options(self, choices: tuple[str, ...], stamps: tuple[_Stamp, ...]) -> _Options:
        try:
            cfg = self._loader.load_configuration(CONFIG_NAME, list(choices), RunMode.RUN)
        except AssertionError as error:  # raised by Hydra in this case only
            message = "a defaults list has lines after its `override` lines; put the `override` lines last"
            raise ConfigCompositionException(message) from error
        named = [(d.config_path, d.package or "") for d in self._loader.last]
        own = [(path, package) for path, package in named if path is not None and not path.startswith("hydra/")]
        return _Options(cfg, own, dict(self._loader.repository.read), stamps)

    def _chooses(self, override: str) -> bool:
        return self.is_choice(override) or override.startswith("hydra.searchpath=")

    def is_choice(self, override: str) -> bool:
        """Whether an override chooses an option of a group."""
        return self._loader.repository.group_exists(key_of(override).split("@")[0])

    def options(self, group: str) -> list[str]:
        """Options of a group."""
        return self._loader.repository.get_group_options(group, ObjectType.CONFIG)

    @cached_property
    def groups(self) -> list[str]:
        """All groups: encoder, encoder/image, ..."""
        results: list[str] = []
        waiting = [""]
        while waiting:
            parent = waiting.pop()
            for name in self._loader.repository.get_group_options(parent, ObjectType.GROUP):
                path = f"{parent}/{name}" if parent else name
                if not path.startswith("hydra"):
                    results.append(path)
                    waiting.append(path)
        return sorted(results)


def keep_last_overrides(overrides: list[str]) -> tuple[list[str], list[str]]:
    """Keep only the last override of each key, and return a note for each that was replaced.

    >>> keep_last_overrides(["dim=64", "seed=1", "dim=128"])
    (['seed=1', 'dim=128'], ['dim=64: replaced by dim=128, because the last value of a key is used'])
    >>> keep_last_overrides(["+trainer.x=1", "trainer.x=2"])[0]
    ['+trainer.x=2']
    """
    kept: dict[str, str] = {}
    notes = []
    for place, override in enumerate(overrides):
        key = key_of(override)
        # an override without a value, such as ~key, is kept unchanged
        name = key if "=" in override and not override.startswith("~") else f"{place}"
        earlier = kept.pop(name, None)
        if earlier is not None and earlier != override:
            notes.append(f"{earlier}: replaced by {override}, because the last value of a key is used")
        if earlier is not None and not override.startswith("+"):
            override = earlier[: len(earlier) - len(earlier.lstrip("+"))] + override
        kept[name] = override
    return list(kept.values()), notes


def key_of(override: str) -> str:
    """The key or group that an override changes."""
    return override.split("=")[0].lstrip("+~")


def fill_auto(cfg: DictConfig) -> None:
    """Set values that are `auto` and that other parts of the configuration determine.

    This happens in place, before interpolations of them are resolved.
    """
    fill_inputs(cfg)
    fill_spaces(cfg)
    fill_tokenizers(cfg)


def fill_tokenizers(cfg: DictConfig) -> None:
    """Set `tokenizer: auto` of a target to the name of the language model that a task has, or to null."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    targets = plain["data"].get("targets") if isinstance(plain.get("data"), dict) else None
    for name, node in targets.items() if isinstance(targets, dict) else ():
        if isinstance(node, dict) and node.get("tokenizer") == "auto":
            result = next(language_models(plain.get("task"), "task"), None)
            OmegaConf.update(cfg, f"data.targets.{name}.tokenizer", None if result is None else f"${{{result}.name}}")


def language_models(node: Any, key: str) -> Iterator[str]:
    """The keys below a node that are a language model with a name."""
    for name, part in node.items() if isinstance(node, dict) else ():
        inside = f"{key}.{name}"
        if name == "lm" and isinstance(part, dict) and part.get("name") is not None:
            yield inside
        yield from language_models(part, inside)


def fill_inputs(cfg: DictConfig) -> None:
    """Set values of inputs that are `auto` to those of an encoder without pretrained weights, if theirs has none.

    This happens in place, before interpolations of them are resolved. With pretrained weights, `mmtrain.build` reads
    them. All images and videos have one size.
    """
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    data, encoders = plain.get("data"), plain.get("encoder")
    inputs = data.get("inputs") if isinstance(data, dict) else None
    if not isinstance(inputs, dict) or not isinstance(encoders, dict):
        return
    nodes = {name: node for name, node in inputs.items() if isinstance(node, dict)}
    sized = [name for name, node in nodes.items() if "size" in node]
    have_size = any(has_weights(encoders.get(name)) for name in sized)
    for name, node in nodes.items():
        for key, value in INPUTS_FROM_SCRATCH.items():
            if node.get(key) == "auto" and not (have_size if key == "size" else has_weights(encoders.get(name))):
                OmegaConf.update(cfg, f"data.inputs.{name}.{key}", value)


def fill_spaces(cfg: DictConfig) -> None:
    """Set `embed_dim: auto` and `loss: auto` of contrastive tasks without a pretrained pair.

    This happens in place. For a pair, `mmtrain.build` reads them from its configuration.
    """
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    tasks, encoders = plain.get("task"), plain.get("encoder")
    for name, task in tasks.items() if isinstance(tasks, dict) and isinstance(encoders, dict) else ():
        if not isinstance(task, dict) or "projection" not in task or not isinstance(task.get("modalities"), list):
            continue
        assert isinstance(encoders, dict)
        nodes = [encoders.get(modality) for modality in task["modalities"]]
        targets = [str(node.get("_target_", "")) if isinstance(node, dict) else "" for node in nodes]
        if any(target.startswith(TOWERS) or not target.startswith("mmtrain.") for target in targets):
            continue
        for key, value in (("embed_dim", "${dim}"), ("loss", "info_nce")):
            if task.get(key) == "auto":
                OmegaConf.update(cfg, f"task.{name}.{key}", value)


def has_weights(encoder: Any) -> bool:
    """Whether an encoder's node, or a node inside it, names pretrained weights, or an architecture of one size."""
    if not isinstance(encoder, Mapping):
        return False
    sized = str(encoder.get("_target_", "")).startswith(OWN_SIZES)
    return sized or encoder.get("pretrained") not in (None, False) or any(map(has_weights, encoder.values()))
