"""Configuration keys and values that have another name than in mmtrain 0.1.0: the old ones are taken for one release.

They may be in a command line, in a sweep, in a user's own YAML files, in a run folder and in a checkpoint. Which key of
a node is an old one depends on the component that the node describes: a user's own component keeps its names.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from mmtrain.io.escape import print_escaped

FIX = "write the new name; the next release no longer accepts the old one"


@dataclass(frozen=True)
class RenamedKey:
    """A key of a component, or of every node that has a certain other key.

    Attributes:
        old: its name in mmtrain 0.1.0.
        new: its name today.
        targets: paths of the components that have it.
        sibling: a key of the nodes below `encoder` that have it; it is used where `targets` is empty.
        values: by old value the new one, for words that have another name today.
    """

    old: str
    new: str
    targets: tuple[str, ...] = ()
    sibling: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    def is_of(self, path: str, node: Mapping[str, Any]) -> bool:
        """Whether a node of the configuration has this key.

        Args:
            path: the dotted key of the node.
            node: its keys and values.
        """
        if self.targets:
            return node.get("_target_") in self.targets
        return path.startswith("encoder.") and self.sibling in node


# Keys that have another name for every component.
RENAMED_PATHS: Mapping[str, str] = {
    "test.by": "test.group_by",
    "trainer.max_skipped": "trainer.max_nonfinite_steps",
    "resume.allow": "resume_allow",
}

# Keys of components.
RENAMED_KEYS: tuple[RenamedKey, ...] = (
    RenamedKey(
        "reads",
        "input",
        targets=(
            "mmtrain.tasks.classification.Classification",
            "mmtrain.tasks.distillation.Distillation",
            "mmtrain.tasks.generation.Generation",
            "mmtrain.tasks.masked_image.MaskedImage",
            "mmtrain.tasks.masked_text.MaskedText",
            "mmtrain.tasks.multilabel.MultiLabel",
            "mmtrain.tasks.ranking.Ranking",
            "mmtrain.tasks.regression.Regression",
            "mmtrain.tasks.vqa.VQA",
        ),
    ),
    RenamedKey(
        "share",
        "mask_ratio",
        targets=(
            "mmtrain.tasks.masked_text.MaskedText",
            "mmtrain.tasks.masked_image.MaskedImage",
        ),
    ),
    RenamedKey("hard_share", "hard_negative_ratio", targets=("mmtrain.tasks.matching.Matching",)),
    RenamedKey("negatives_from", "hard_negatives_from", targets=("mmtrain.tasks.matching.Matching",)),
    RenamedKey(
        "partners",
        "negatives",
        targets=("mmtrain.tasks.matching.Matching",),
        values={"step": "global", "part": "local"},
    ),
    RenamedKey("queue", "queue_size", targets=("mmtrain.tasks.contrastive.Contrastive",)),
    RenamedKey("chunk", "chunk_size", targets=("mmtrain.tasks.contrastive.Contrastive",)),
    RenamedKey(
        "continues",
        "init_policy_from",
        targets=(
            "mmtrain.tasks.dpo.Dpo",
            "mmtrain.tasks.grpo.Grpo",
            "mmtrain.tasks.scst.Scst",
        ),
    ),
    RenamedKey("final", "min_lr_ratio", targets=("mmtrain.training.optim.schedules.cosine",)),
    RenamedKey(
        "warmup",
        "warmup_ratio",
        targets=(
            "mmtrain.training.optim.schedules.cosine",
            "mmtrain.training.optim.schedules.constant",
        ),
    ),
    RenamedKey("labelled_share", "label_fraction", targets=("mmtrain.data.module.DataModule",)),
    RenamedKey("max_bad", "max_bad_fraction", targets=("mmtrain.data.module.DataModule",)),
    RenamedKey(
        "confine",
        "restrict_paths",
        targets=(
            "mmtrain.data.module.DataModule",
            "mmtrain.data.sources.mix.Part",
            "mmtrain.data.sources.hub.hub_tables",
        ),
    ),
    RenamedKey(
        "holds",
        "column_roles",
        targets=(
            "mmtrain.data.targets.chat.ChatTarget",
            "mmtrain.data.targets.chat_preference.ChatPreference",
        ),
    ),
    RenamedKey(
        "places",
        "placeholders",
        targets=(
            "mmtrain.data.targets.chat.ChatTarget",
            "mmtrain.data.targets.chat_preference.ChatPreference",
        ),
    ),
    RenamedKey(
        "keep_sentences",
        "keep_references",
        targets=(
            "mmtrain.data.targets.text.TextTarget",
            "mmtrain.data.targets.preference.Preference",
            "mmtrain.data.targets.chat.ChatTarget",
            "mmtrain.data.targets.chat_preference.ChatPreference",
        ),
    ),
    RenamedKey("lr_scale", "lr_mult", sibling="layer_decay"),
    RenamedKey(
        "every",
        "update_every",
        targets=(
            "mmtrain.balance.nash.Nash",
            "mmtrain.balance.modality.gradient_blend.GradientBlend",
        ),
    ),
    RenamedKey(
        "every",
        "cross_attn_every_n_layers",
        targets=("mmtrain.fusion.connectors.gated_cross_attn.GatedCrossAttnConnector",),
    ),
    RenamedKey(
        "cross_every",
        "cross_attention_frequency",
        targets=(
            "mmtrain.fusion.q_former.QFormer",
            "mmtrain.fusion.connectors.q_former.QFormerConnector",
        ),
    ),
    RenamedKey("reader", "query_modality", targets=("mmtrain.fusion.gated_cross_attn.GatedCrossAttn",)),
    RenamedKey("of", "distilled_task", targets=("mmtrain.tasks.distillation.Distillation",)),
    RenamedKey("features", "feature_weight", targets=("mmtrain.tasks.distillation.Distillation",)),
    RenamedKey("warmup", "warmup_epochs", targets=("mmtrain.balance.stch.STCH",)),
    RenamedKey("max_film_pixels", "max_video_pixels", targets=("mmtrain.data.inputs.video.VideoInput",)),
    RenamedKey("max_pictures", "max_images", targets=("mmtrain.data.inputs.images.ImagesInput",)),
    RenamedKey("max_numbers", "max_elements", targets=("mmtrain.data.inputs.sequence.SequenceInput",)),
    RenamedKey(
        "missing",
        "missing",
        targets=(
            "mmtrain.fusion.block.BlockFusion",
            "mmtrain.fusion.concat.Concat",
            "mmtrain.fusion.gated.Gated",
            "mmtrain.fusion.low_rank.LowRank",
            "mmtrain.fusion.mcb.MCB",
            "mmtrain.fusion.mfb.MFB",
            "mmtrain.fusion.mfh.MFH",
            "mmtrain.fusion.mlb.MLB",
            "mmtrain.fusion.multiplicative.Multiplicative",
            "mmtrain.fusion.mutan.Mutan",
            "mmtrain.fusion.sum.Sum",
            "mmtrain.fusion.tensor.TensorFusion",
        ),
        values={"neutral": "identity"},
    ),
)


def update_keys(cfg: DictConfig, overrides: Sequence[str] = ()) -> list[str]:
    """Give old keys and values of a composed or recorded configuration their new names, in place.

    Where both names of a key are set, the old one can only be from a user's file, so it counts, unless the command line
    sets the new one.

    Args:
        cfg: a configuration; Hydra's own part is left alone.
        overrides: of the command line that it is composed of, with today's names.

    Returns:
        A note for each that was an old one.
    """
    commanded = {override.partition("=")[0].lstrip("+~") for override in overrides}
    plain = without_hydra(cfg)
    notes = []
    with open_dict(cfg):
        for old, new, value in list(_changes(plain)):
            if old != new:
                _delete(cfg, old)
            if new not in commanded:
                OmegaConf.update(cfg, new, value)
            notes.append(_note(f"{old}={_value_at(plain, old)}", f"{new}={value}"))
        plain = without_hydra(cfg)
        for key, value in [(k, v) for k, v in _leaves(plain) if isinstance(v, str) and "${" in v]:
            current = _with_current_interpolations(key, value, plain)
            if current != value:
                OmegaConf.update(cfg, key, current)
                notes.append(_note(f"{key}={value}", f"{key}={current}"))
    return notes


def current_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an earlier version's checkpoint by dotted key, with today's keys and values."""
    tree = _tree(facts)
    current = {}
    for key, value in facts.items():
        parent, _, name = key.rpartition(".")
        renamed = _renamed(parent, tree.get(parent, {}), name)
        current[current_key(key, tree)] = value if renamed is None else _current_value(renamed, value)
    return current


def current_keys_of_facts(keys: Sequence[str], facts: Mapping[str, Any]) -> list[str]:
    """Keys that a person names, such as those that may differ in a resumed run, under their names of today."""
    tree = _tree(facts)
    return [current_key(key, tree) for key in keys]


def may_be_old(override: str) -> bool:
    """Whether an override has a word in it that is an old name: only then it is worth to look closer.

    >>> may_be_old("seed=1")
    False
    """
    return _old_words().search(override) is not None


def current_override(override: str, cfg: Mapping[str, Any]) -> str:
    """An override with today's key and values; the same one where it has no old name.

    Args:
        override: of a command line.
        cfg: what the command line composes to, or what a run recorded, as plain dicts.
    """
    typed, equals, value = override.partition("=")
    key = typed.lstrip("+~")
    if not may_be_old(override) or "@" in key or "/" in key:
        return override
    sign = typed[: len(typed) - len(key)]
    if key in RENAMED_PATHS:
        return f"{sign}{RENAMED_PATHS[key]}{equals}{value}"
    parent, _, name = key.rpartition(".")
    node = cfg[parent] if parent in cfg else _value_at(cfg, parent)
    renamed = _renamed(parent, node, name) if isinstance(node, Mapping) else None
    if renamed is not None:
        return f"{sign}{_join(parent, renamed.new)}{equals}{_with_words(value, renamed.values)}"
    return f"{sign}{key}{equals}{_current_literal(key, value, cfg)}"


def current_key(key: str, cfg: Mapping[str, Any]) -> str:
    """A dotted key under its name of today; `cfg` as in `current_override`."""
    return current_override(f"{key}=", cfg).removesuffix("=")


def current_overrides(
    overrides: Sequence[str], trees: Callable[[Sequence[str]], Iterator[Mapping[str, Any]]]
) -> tuple[list[str], list[str]]:
    """Overrides with today's keys and values, and a note for each that had old ones.

    Args:
        overrides: of a command line.
        trees: gives what some overrides compose to, as plain dicts; several where they are a sweep.
    """
    suspects = [o for o in overrides if may_be_old(o)]
    if not suspects:
        return list(overrides), []
    current = dict.fromkeys(suspects, "")
    for cfg in trees([o for o in overrides if o not in suspects]):
        for override in suspects:
            if current[override] in ("", override):
                current[override] = current_override(override, cfg)
    notes = [_note(old, new) for old, new in current.items() if new not in ("", old)]
    return [current.get(o) or o for o in overrides], notes


@cache
def report(note: str) -> None:
    """Print a note on stderr, once in this process."""
    print_escaped(note, stderr=True)


def without_hydra(cfg: DictConfig) -> dict[str, Any]:
    """Plain dicts, nothing resolved."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def _tree(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Nodes by their dotted key, from values by theirs."""
    nodes: dict[str, dict[str, Any]] = {}
    for key, value in facts.items():
        parent, _, name = key.rpartition(".")
        nodes.setdefault(parent, {})[name] = value
    return nodes


def _note(old: str, new: str) -> str:
    return f"{old}: the name is now {new}\n    fix: {FIX}"


def _join(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name


@cache
def _old_words() -> re.Pattern[str]:
    words = {path.rpartition(".")[2] for path in RENAMED_PATHS}
    for renamed in RENAMED_KEYS:
        words |= {renamed.old} if renamed.old != renamed.new else set(renamed.values)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(words))) or '(?!)'})(?!\w)")


def _renamed(path: str, node: Mapping[str, Any], name: str) -> RenamedKey | None:
    """The entry for a key of a node."""
    return next((renamed for renamed in RENAMED_KEYS if renamed.old == name and renamed.is_of(path, node)), None)


def _current_value(renamed: RenamedKey, value: Any) -> Any:
    return renamed.values.get(value, value) if isinstance(value, str) else value


def _changes(plain: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The old key, the new key and the new value of each that has an old name."""
    for path, node in _nodes(plain, ""):
        for name, value in node.items():
            key = _join(path, str(name))
            renamed = _renamed(path, node, str(name))
            if key in RENAMED_PATHS:
                yield key, RENAMED_PATHS[key], value
            elif renamed is not None and (renamed.old != renamed.new or _current_value(renamed, value) != value):
                yield key, _join(path, renamed.new), _current_value(renamed, value)


def _nodes(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping with its dotted key."""
    if isinstance(node, Mapping):
        yield path, node
        for name, part in node.items():
            yield from _nodes(part, _join(path, str(name)))
    elif isinstance(node, list):
        for number, part in enumerate(node):
            yield from _nodes(part, f"{path}[{number}]")


def _leaves(plain: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping with its dotted key; those in lists are not among them."""
    for path, node in _nodes(plain, ""):
        yield from ((_join(path, str(name)), value) for name, value in node.items() if not isinstance(value, Mapping))


def _value_at(cfg: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted key; None when it is not there."""
    node: Any = cfg
    for word in re.findall(r"[^.\[\]]+", path):
        if isinstance(node, list) and word.isdigit() and int(word) < len(node):
            node = node[int(word)]
        elif isinstance(node, Mapping) and word in node:
            node = node[word]
        else:
            return None
    return node


def _delete(cfg: DictConfig, key: str) -> None:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    with open_dict(node):
        del node[name]


_REFERENCE = re.compile(r"(?<=\$\{)((?:oc\.select:)?)(\.*)([A-Za-z_][\w.\[\]]*)")


def _with_current_interpolations(key: str, value: str, plain: Mapping[str, Any]) -> str:
    """The text of a value, with today's keys in its interpolations."""

    def current(match: re.Match[str]) -> str:
        function, dots, path = match.groups()
        base = key.split(".")[: -len(dots)] if dots else []
        absolute = current_key(".".join([*base, path]), plain)
        return f"{function}{dots}{absolute.removeprefix(''.join(f'{word}.' for word in base))}"

    return _REFERENCE.sub(current, value)


def _with_words(text: str, words: Mapping[str, str]) -> str:
    """A value as it is typed, which may be several: `neutral,learned` or `choice(neutral,learned)`."""
    for old, new in words.items():
        text = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, text)
    return text


def _current_literal(path: str, value: str, cfg: Mapping[str, Any]) -> str:
    """A mapping as it is typed, such as `{queue: 32}`, with today's keys."""
    if not value.lstrip().startswith("{"):
        return value
    node = _value_at(cfg, path)
    target = re.search(r"_target_\s*:\s*['\"]?([\w.]+)", value)
    known = {**(node if isinstance(node, Mapping) else {}), **({"_target_": target[1]} if target else {})}
    for inner, part in _nodes({path: known}, ""):
        for renamed in RENAMED_KEYS:
            if renamed.is_of(inner, part):
                value = re.sub(rf"(?<=[{{,\s])(['\"]?){renamed.old}\1(?=\s*:)", renamed.new, value)
                if renamed.values:
                    pattern = rf"(?<=[{{,\s]){renamed.new}\s*:\s*['\"]?[\w]+"
                    value = re.sub(pattern, lambda match: _with_words(match[0], renamed.values), value)  # noqa: B023
    return value
