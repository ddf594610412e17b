"""Components whose path has changed since mmtrain 0.1.0. A `_target_` may have the old path for one release.

Run folders and checkpoints of 0.1.0 record old paths, and a user's own YAML files may name them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Modules of components: old path and new path.
MOVED: Mapping[str, str] = {
    "mmtrain.callbacks.ema": "mmtrain.training.callbacks.ema",
    "mmtrain.callbacks.ledger": "mmtrain.training.callbacks.ledger",
    "mmtrain.connectors.gated_cross_attn": "mmtrain.fusion.connectors.gated_cross_attn",
    "mmtrain.connectors.mlp": "mmtrain.fusion.connectors.mlp",
    "mmtrain.connectors.perceiver": "mmtrain.fusion.connectors.perceiver",
    "mmtrain.connectors.q_former": "mmtrain.fusion.connectors.q_former",
    "mmtrain.data.answer": "mmtrain.data.targets.answer",
    "mmtrain.data.audio": "mmtrain.data.inputs.audio",
    "mmtrain.data.buckets": "mmtrain.data.sampling.buckets",
    "mmtrain.data.chat_preference": "mmtrain.data.targets.chat_preference",
    "mmtrain.data.chat_target": "mmtrain.data.targets.chat",
    "mmtrain.data.emoji_questions": "mmtrain.data.sources.emoji_questions",
    "mmtrain.data.fetch": "mmtrain.data.sources.fetch",
    "mmtrain.data.files": "mmtrain.data.sources.files",
    "mmtrain.data.hub": "mmtrain.data.sources.hub",
    "mmtrain.data.image": "mmtrain.data.inputs.image",
    "mmtrain.data.images": "mmtrain.data.inputs.images",
    "mmtrain.data.label": "mmtrain.data.targets.label",
    "mmtrain.data.mix": "mmtrain.data.sources.mix",
    "mmtrain.data.multilabel": "mmtrain.data.targets.multilabel",
    "mmtrain.data.number": "mmtrain.data.targets.number",
    "mmtrain.data.openmoji": "mmtrain.data.sources.openmoji",
    "mmtrain.data.pictures": "mmtrain.data.sources.media_folder",
    "mmtrain.data.preference": "mmtrain.data.targets.preference",
    "mmtrain.data.public.coco_captions": "mmtrain.data.sources.public.coco_captions",
    "mmtrain.data.public.flickr30k": "mmtrain.data.sources.public.flickr30k",
    "mmtrain.data.public.food101": "mmtrain.data.sources.public.food101",
    "mmtrain.data.public.hateful_memes": "mmtrain.data.sources.public.hateful_memes",
    "mmtrain.data.public.meld": "mmtrain.data.sources.public.meld",
    "mmtrain.data.public.msr_vtt": "mmtrain.data.sources.public.msr_vtt",
    "mmtrain.data.public.msrvtt_qa": "mmtrain.data.sources.public.msrvtt_qa",
    "mmtrain.data.public.vqav2": "mmtrain.data.sources.public.vqav2",
    "mmtrain.data.sequence": "mmtrain.data.inputs.sequence",
    "mmtrain.data.shards": "mmtrain.data.sources.shards",
    "mmtrain.data.splits": "mmtrain.data.tables.splits",
    "mmtrain.data.text": "mmtrain.data.inputs.text",
    "mmtrain.data.text_target": "mmtrain.data.targets.text",
    "mmtrain.data.turns": "mmtrain.data.inputs.turns",
    "mmtrain.data.vector": "mmtrain.data.inputs.vector",
    "mmtrain.data.video": "mmtrain.data.inputs.video",
    "mmtrain.loggers.tensorboard": "mmtrain.training.loggers.tensorboard",
    "mmtrain.loggers.wandb": "mmtrain.training.loggers.wandb",
    "mmtrain.modality_balance.gradient_blend": "mmtrain.balance.modality.gradient_blend",
    "mmtrain.modality_balance.ogm_ge": "mmtrain.balance.modality.ogm_ge",
    "mmtrain.run_folder": "mmtrain.training.run_folder",
    "mmtrain.schedules": "mmtrain.training.optim.schedules",
    "mmtrain.sweeps.summary": "mmtrain.cli.sweeps.summary",
}


def current_path(target: str) -> str:
    """The current path of a class or function.

    >>> current_path("mmtrain.data.image.ImageInput"), current_path("mmtrain.fusion.concat.Concat")
    ('mmtrain.data.inputs.image.ImageInput', 'mmtrain.fusion.concat.Concat')
    """
    module, _, name = target.rpartition(".")
    return f"{MOVED[module]}.{name}" if module in MOVED else target


def with_current_paths(node: Any) -> Any:
    """Plain lists and dicts, with the current path in each `_target_`."""
    if isinstance(node, list):
        return [with_current_paths(part) for part in node]
    if not isinstance(node, dict):
        return node
    return {
        key: current_path(value) if key == "_target_" and isinstance(value, str) else with_current_paths(value)
        for key, value in node.items()
    }


def update_targets(cfg: DictConfig) -> list[str]:
    """Write the current path into each `_target_`, in place.

    Args:
        cfg: a configuration. Hydra's own part is not changed.

    Returns:
        A note for each path that has changed.
    """
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    notes = []
    for key, target in _targets({k: v for k, v in plain.items() if k != "hydra"}, ""):
        new = current_path(target)
        if new != target:
            OmegaConf.update(cfg, key, new)
            fix = "write the new path; the next release no longer accepts the old one"
            notes.append(f"{key}={target}: moved to {new}\n    fix: {fix}")
    return notes


def _targets(node: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Every `_target_` with its dotted key."""
    if isinstance(node, dict):
        for key, value in node.items():
            place = f"{prefix}.{key}" if prefix else str(key)
            if key == "_target_" and isinstance(value, str):
                yield place, value
            yield from _targets(value, place)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _targets(value, f"{prefix}[{number}]")
