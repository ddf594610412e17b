"""Exports a trained pair of towers as its own library has it: a CLIPModel or SiglipModel folder, or one of open_clip.

Pooling, projections, logit scale and bias, tokenizer and image processor are included, so that the similarities of
raw images and texts are those of the trained model, without mmtrain.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from mmtrain.data.inputs.image import ImageInput
from mmtrain.data.inputs.text import TextInput
from mmtrain.data.protocols import InputKind
from mmtrain.errors import ConfigError
from mmtrain.io.run_files import write_json
from mmtrain.layers.image_processor import FILTERS
from mmtrain.layers.open_clip_pair import OpenCLIPTower
from mmtrain.layers.transformers_pair import FAMILIES, LoadedTower, complete_pair
from mmtrain.model import MultimodalModel
from mmtrain.modes.export.export import image_processor, merge_adapters
from mmtrain.tasks.contrastive import Contrastive

Library = Literal["transformers", "open_clip"]
Kind = TypeVar("Kind")
LIBRARIES: tuple[Library, ...] = get_args(Library)
PROCESSORS: Mapping[str, str] = {
    "clip": "CLIPProcessor",
    "siglip": "SiglipProcessor",
    "siglip2": "Siglip2Processor",
    "altclip": "AltCLIPProcessor",
    "chinese_clip": "ChineseCLIPProcessor",
    "clap": "ClapProcessor",
}


def export_pair(
    model: MultimodalModel, kinds: Mapping[str, InputKind], folder: Path, *, library: Library = "transformers"
) -> str:
    """Write both towers of a pair and all that belongs to them.

    Args:
        model: with a contrastive task that uses the projections of its encoders; adapters are merged.
        kinds: the inputs of the training, by modality.
        folder: created if it does not exist.
        library: whose format is written.

    Returns:
        The code that loads the pair.

    Raises:
        ConfigError: if the model is no pair, or open_clip has no such model.
    """
    merge_adapters(model)
    model.eval()
    task = _task_of_pair(model)
    first = model.encoders[task.pretrained[0]]
    if isinstance(first, OpenCLIPTower):
        return _write_again(model, task, folder, library)
    config: Any = first.complete_config
    towers: dict[str, Any] = {m: model.encoders[m] for m in FAMILIES[config.model_type].towers if m in task.pretrained}
    lacking = [m for m in FAMILIES[config.model_type].towers if m not in towers]
    if lacking:
        raise ConfigError(f"the tower of {lacking[0]} is not in the model, so there is no pair\n    fix: export a part")
    complete = complete_pair(
        config,
        {m: LoadedTower(tower.library_model, tower.projection) for m, tower in towers.items()},
        logit_scale=task.log_scale,
        logit_bias=task.bias,
    )
    folder.mkdir(parents=True, exist_ok=True)
    if library == "open_clip":
        return _write_open_clip(complete, kinds, folder)
    complete.save_pretrained(folder)
    prepare = towers["audio"].extractor if "audio" in towers else _image_processor(_kind_of(kinds, ImageInput))
    text = _kind_of(kinds, TextInput)
    make = getattr(transformers, PROCESSORS[config.model_type])
    make(prepare, text.to_transformers()).save_pretrained(folder)
    return f'transformers.{type(complete).__name__}.from_pretrained("{folder}")  # and AutoProcessor of the same name'


def _write_again(model: MultimodalModel, task: Contrastive, folder: Path, library: str) -> str:
    """Write a pair of open_clip, with the configuration that it was loaded with."""
    import open_clip

    towers = [tower for tower in model.encoders.values() if isinstance(tower, OpenCLIPTower)]
    if library != "open_clip" or len(towers) < 2:
        raise ConfigError(
            f"--library {library}: the model has {len(towers)} towers of open_clip\n"
            "    fix: --library open_clip for a model with both, or export a part"
        )
    complete = open_clip.create_model(towers[0].name, load_weights=False)
    weights = complete.state_dict()
    for tower in towers:
        weights |= tower.net.state_dict()
    weights["logit_scale"] = task.log_scale.detach()
    if task.bias is not None and "logit_bias" in weights:
        weights["logit_bias"] = task.bias.detach()
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": open_clip.get_model_config(towers[0].name), "preprocess_cfg": complete.visual.preprocess_cfg}
    write_json(folder / "open_clip_config.json", config, indent=2)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "open_clip_model.safetensors")
    tokenizer = getattr(open_clip.get_tokenizer(towers[0].name), "tokenizer", None)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return _OPEN_CLIP_CODE.format(folder=folder)


_OPEN_CLIP_CODE = 'open_clip.create_model_from_pretrained("local-dir:{folder}")  # and get_tokenizer of the same name'


def _task_of_pair(model: MultimodalModel) -> Contrastive:
    for task in model.tasks.values():
        if isinstance(task, Contrastive) and task.pretrained:
            return task
    raise ConfigError(
        "the model has no contrastive task that uses the projections of a pretrained pair\n"
        "    fix: export a run of encoder=clip task=[contrastive], or one part of the model with --part MODALITY"
    )


def _image_processor(kind: ImageInput) -> Any:
    """The processor of transformers that prepares images as this input does."""
    if kind.max_patches is None or kind.patch_size is None:
        return image_processor(kind)
    return transformers.Siglip2ImageProcessor(
        patch_size=kind.patch_size,
        max_num_patches=kind.max_patches,
        image_mean=kind.mean,
        image_std=kind.std,
        resample=FILTERS.index(kind.geometry.interpolation),
    )


def _kind_of(kinds: Mapping[str, InputKind], wanted: type[Kind]) -> Kind:
    return next(kind for kind in kinds.values() if isinstance(kind, wanted))


def _write_open_clip(complete: Any, kinds: Mapping[str, InputKind], folder: Path) -> str:
    """Write open_clip_config.json, weights and tokenizer, which open_clip loads as local-dir:FOLDER."""
    config = complete.config
    if config.model_type != "clip":
        raise ConfigError(
            f"--library open_clip: a model of type {config.model_type} is not written in the format of open_clip yet\n"
            "    fix: --library transformers"
        )
    vision, text = config.vision_config, config.text_config
    acts = {vision.hidden_act, text.hidden_act}
    eps = {vision.layer_norm_eps, text.layer_norm_eps}
    if not (acts == {"quick_gelu"} or acts == {"gelu"}) or eps != {1e-5}:
        raise ConfigError(
            f"--library open_clip: activations {sorted(acts)} and norms with eps {sorted(eps)} have no counterpart\n"
            "    fix: --library transformers"
        )
    image, words = _kind_of(kinds, ImageInput), _kind_of(kinds, TextInput)
    model_config = {
        "embed_dim": config.projection_dim,
        "quick_gelu": acts == {"quick_gelu"},
        "vision_cfg": {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "width": vision.hidden_size,
            "layers": vision.num_hidden_layers,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
            "hf_tokenizer_name": ".",  # open_clip reads the files in this folder
        },
    }
    preprocess = {
        "mean": image.mean,
        "std": image.std,
        "interpolation": image.geometry.interpolation,
        "resize_mode": "shortest" if isinstance(image.geometry.resized, int) else "squash",
        "size": image.size,
    }
    write_json(folder / "open_clip_config.json", {"model_cfg": model_config, "preprocess_cfg": preprocess}, indent=2)
    state = {name: tensor.contiguous() for name, tensor in open_clip_weights(complete.state_dict()).items()}
    save_file(state, folder / "open_clip_model.safetensors")
    words.to_transformers().save_pretrained(folder)
    return _OPEN_CLIP_CODE.format(folder=folder)


def open_clip_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a CLIPModel for `open_clip.model.CLIP`, and stack those of queries, keys and values."""
    result: dict[str, Tensor] = {"logit_scale": weights["logit_scale"]}
    for name, tensor in weights.items():
        tower, _, rest = name.partition(".")
        if tower in ("vision_model", "text_model"):
            new = _open_clip_name(rest, "visual." if tower == "vision_model" else "")
            if new is not None:
                result[new] = tensor
    for tower, prefix in (("vision_model", "visual."), ("text_model", "")):
        number = 0
        while (block := f"{tower}.encoder.layers.{number}.self_attn") + ".q_proj.weight" in weights:
            for kind in ("weight", "bias"):
                parts = [weights[f"{block}.{part}_proj.{kind}"] for part in ("q", "k", "v")]
                result[f"{prefix}transformer.resblocks.{number}.attn.in_proj_{kind}"] = torch.cat(parts)
            number += 1
    result["visual.proj"] = weights["visual_projection.weight"].T
    result["text_projection"] = weights["text_projection.weight"].T
    return result


# the end of a name in transformers, and in open_clip
_MODULES = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding": "conv1",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding": "token_embedding",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "final_layer_norm": "ln_final",
}
_IN_BLOCKS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def _open_clip_name(name: str, prefix: str) -> str | None:
    """The name of one weight of a tower; None for queries, keys and values."""
    blocks = "encoder.layers."
    table, head = _MODULES, prefix
    if name.startswith(blocks):
        number, _, name = name.removeprefix(blocks).partition(".")
        table, head = _IN_BLOCKS, f"{prefix}transformer.resblocks.{number}."
    for theirs, ours in table.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return head + ours + name.removeprefix(theirs)
    return None
