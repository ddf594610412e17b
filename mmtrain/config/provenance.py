"""A composed configuration, and the origin of each value: an override of the command line, or a file."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

_COPY = re.compile(r"\$\{(oc\.select:)?([\w.]+)(?(1),[^{}]*|)\}")  # ${dim}; or ${oc.select:dim,64} with a default


@dataclass(frozen=True)
class Source:
    """One file of a configuration: the values that it sets, and the key below which it sets them."""

    file: str
    package: str
    content: Mapping[str, Any]

    def get(self, key: str) -> tuple[Any] | None:
        """Return the value of a key in this file; None if the file does not set it."""
        if self.package == key:
            return (self.content,)
        if self.package and not key.startswith(f"{self.package}."):
            return None
        node: Any = self.content
        for word in key.removeprefix(f"{self.package}.").split("."):
            if not isinstance(node, Mapping) or word not in node:
                return None
            node = node[word]
        return (node,)


@dataclass(frozen=True)
class ComposedConfig:
    """A composed configuration, and the overrides that led to it.

    Attributes:
        cfg: the configuration; some interpolations may not resolve.
        raw: every key with its unresolved value.
        sources: the files, in the order of composition.
        set_by: by key, the override that sets a value.
        chosen_by: by group, the override that chooses an option.
    """

    cfg: DictConfig
    raw: Mapping[str, Any]
    sources: list[Source]
    set_by: Mapping[str, str]
    chosen_by: Mapping[str, str]

    def get(self, key: str) -> Any:
        """Return a resolved value; None if it does not exist."""
        return OmegaConf.select(self.cfg, key)

    def root(self, key: str) -> str:
        """The key that this one copies: `dim` for a value of ${dim}."""
        seen = {key}
        while (copied := _COPY.fullmatch(str(self.raw.get(key)))) is not None:
            optional, other = copied[1], _absolute(copied[2], key)
            if other in seen or (other not in self.raw and (optional or copied[2].startswith("."))):
                break
            key = other
            seen.add(key)
        return key

    def where(self, *keys: str) -> str:
        """Where values were set: the overrides, or otherwise the files."""
        origins = dict.fromkeys(self._origin(self.root(key)) for key in keys)
        return ", ".join([o for o in origins if o.startswith("override ")] or origins)

    def _origin(self, key: str) -> str:
        if key in self.chosen_by:
            return f"override {self.chosen_by[key]}"
        above = [name for name in self.set_by if key == name or key.startswith(f"{name}.")]
        if above:
            return f"override {self.set_by[max(above, key=len)]}"
        return self.file_of(key)

    def file_of(self, key: str) -> str:
        """The last file that sets a key, or otherwise the node that contains it."""
        while key:
            for source in reversed(self.sources):
                if source.get(key) is not None:
                    return source.file
            key = key.rpartition(".")[0]
        return "configs/train.yaml"

    def default(self, key: str) -> Any:
        """The value of a key in the first file that sets it."""
        candidates = (source.get(key) for source in self.sources)
        value = next((value for result in candidates if result is not None for value in result), None)
        copied = _COPY.fullmatch(str(value))
        return value if copied is None else self.default(_absolute(copied[2], key))

    def parts(self) -> Iterator[tuple[str, Any]]:
        """Every node that becomes an object, with its key."""
        several = ("encoder", "task", "data.inputs", "callbacks", "logger")
        for key in ("data", "data.source", "balance", "optimizer", "schedule"):
            yield key, self.get(key)
        if "fusion" in self.cfg:
            yield "fusion", self.cfg.fusion
        if self.get("modality_balance"):
            yield "modality_balance", self.cfg.modality_balance
        for key in several:
            names = [str(name) for name in self.get(key) if key != "encoder" or name not in PAIR_KEYS]
            yield from ((f"{key}.{name}", self.get(f"{key}.{name}")) for name in names)


# keys of `encoder` that are no encoder: those of both towers of a pair
PAIR_KEYS = ("pretrained", "name")


def _absolute(name: str, key: str) -> str:
    """The key that an interpolation at another key names: one dot means the node of that key, two the next."""
    dots = len(name) - len(name.lstrip("."))
    return ".".join([*key.split(".")[:-dots], name.lstrip(".")]) if dots else name
