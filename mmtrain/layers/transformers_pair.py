"""Pairs of towers of transformers that share a space: CLIP, SigLIP, SigLIP 2, AltCLIP, ChineseCLIP and CLAP.

Papers: 2103.00020, 2303.15343, 2502.14786, 2211.06679, 2211.01335 and 2211.06687.

A checkpoint of a pair has more than two towers: the pooling, the projections into the shared space, the scale and the
bias of the logits. `load_tower` returns everything that belongs to one modality. The models differ in where the parts
are, which `FAMILIES` lists.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel

from mmtrain.layers.pair_projection import PairProjection, SharedSpace
from mmtrain.layers.transformers_model import of_checkpoint, transformers_config, transformers_model


@dataclass(frozen=True)
class TowerParts:
    """Where the parts of one tower are in the complete model, by dotted names.

    Attributes:
        model: the tower; its last hidden states are the tokens.
        config: the configuration of the tower, in that of the complete model.
        pooling: which token is projected; None if the first module of `head` pools them.
        head: the modules from the pooled token to the shared space, in their order.
        scale: the logarithm of the scale of its queries.
    """

    model: str
    config: str
    pooling: Literal["class", "last", "mean"] | None
    head: tuple[str, ...]
    scale: str = "logit_scale"


@dataclass(frozen=True)
class PairFamily:
    """Complete models of one type.

    Attributes:
        towers: by modality.
        loss: with which it was trained: see `mmtrain.tasks.contrastive.Contrastive`.
    """

    towers: Mapping[str, TowerParts]
    loss: Literal["info_nce", "sigmoid"] = "info_nce"


_CLIP_IMAGE = TowerParts("vision_model", "vision_config", "class", ("vision_model.post_layernorm", "visual_projection"))
_CLIP = PairFamily(
    {"image": _CLIP_IMAGE, "text": TowerParts("text_model", "text_config", "last", ("text_projection",))}
)
_SIGLIP = PairFamily(
    {
        "image": TowerParts("vision_model", "vision_config", None, ("vision_model.head",)),
        "text": TowerParts("text_model", "text_config", "last", ("text_model.head",)),
    },
    loss="sigmoid",
)
_FIRST_TOKEN = PairFamily(
    {"image": _CLIP_IMAGE, "text": TowerParts("text_model", "text_config", "class", ("text_projection",))}
)
# one scale for each direction; a contrastive task has one for both and begins with that of audio
_CLAP = PairFamily(
    {
        "audio": TowerParts("audio_model", "audio_config", "mean", ("audio_projection",), "logit_scale_a"),
        "text": TowerParts(
            "text_model", "text_config", None, ("text_model.pooler", "text_projection"), "logit_scale_t"
        ),
    }
)
NAFLEX = "siglip2"  # images of any shape, as patches
FAMILIES: Mapping[str, PairFamily] = {
    "clip": _CLIP,
    "siglip": _SIGLIP,
    NAFLEX: _SIGLIP,
    "altclip": _FIRST_TOKEN,
    "chinese_clip": _FIRST_TOKEN,
    "clap": _CLAP,
}


class LoadedTower(NamedTuple):
    """One tower of a pair.

    Attributes:
        model: of the library, without the modules that the projection contains.
        projection: into the shared space.
    """

    model: Any
    projection: PairProjection


def pair_config(pretrained: str | None, config: Mapping[str, Any] | None, *, modality: str) -> PretrainedConfig:
    """Return the configuration of a complete pair.

    Args:
        pretrained: a folder or a name on the hub; None for random weights.
        config: model_type and sizes, for random weights; None if `pretrained` is set.
        modality: for which a tower is wanted.

    Raises:
        ValueError: as `transformers_config`, and if the pair has no such tower.
    """
    result = transformers_config(pretrained, config, model_types=tuple(FAMILIES))
    towers = FAMILIES[result.model_type].towers
    if modality not in towers:
        raise ValueError(
            f"pretrained = {pretrained} ({result.model_type}) has towers for {' and '.join(towers)}; set encoder to"
            f" {'clap' if 'audio' in towers else 'clip'}, or choose another encoder of {modality}"
        )
    return result


def shared_space(config: PretrainedConfig) -> SharedSpace:
    """Return the space of a pair, and the loss with which it was trained."""
    family = FAMILIES[config.model_type]
    # the heads of SigLIP project; the configuration of the complete model does not have the width
    named = config.to_dict().get("projection_dim", config.get_text_config().to_dict().get("projection_size"))
    assert isinstance(named, int)
    return SharedSpace(named, family.loss)


def text_preprocessing(
    pretrained: str | None, config: Mapping[str, Any] | None, *, max_length: int | str
) -> dict[str, Any]:
    """Return keys of data.inputs.text with the settings of a pair: tokenizer, context, no hidden words.

    Args:
        pretrained: as in `pair_config`.
        config: as in `pair_config`.
        max_length: wanted by the user; "auto" for the context.

    Raises:
        ValueError: for a longer context than that of the pair, or a tokenizer of another model.
    """
    text: Any = pair_config(pretrained, config, modality="text").get_text_config()
    context = _context(text)
    if isinstance(max_length, int) and max_length > context:
        raise ValueError(
            f"max_length = {max_length}, but pretrained = {pretrained} has positions for {context} tokens;"
            f" set data.inputs.text.max_length to auto, or to {context} or less (longer texts are cut)"
        )
    if pretrained is None:
        return {"max_length": context}
    _check_tokenizer(pretrained, text)
    return {"tokenizer": pretrained, "max_length": context, "word_dropout": 0.0}


def _context(text: Any) -> int:
    """The number of tokens that a text can have. The positions of RoBERTa begin after the padding id."""
    first = text.pad_token_id + 1 if text.model_type in ("altclip_text_model", "clap_text_model") else 0
    return int(text.max_position_embeddings) - first


def _check_tokenizer(pretrained: str, text: Any) -> None:
    """Check that the ids of a tokenizer are those of the weights.

    Raises:
        ValueError: if it has more tokens than the weights, or another end token.
    """
    with of_checkpoint(pretrained):
        tokenizer = AutoTokenizer.from_pretrained(pretrained, trust_remote_code=False)
    fix = "set pretrained to a folder with the tokenizer that the pair was trained with"
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= text.vocab_size:
        raise ValueError(
            f"pretrained = {pretrained}: its tokenizer has ids up to {largest}, but its text tower has"
            f" {text.vocab_size} tokens (vocab_size); {fix}"
        )
    end = text.eos_token_id
    # 2 was written into the configurations of CLIP by mistake; the models of BERT do not use it
    if text.model_type == "clip_text_model" and end not in (None, 2) and end != tokenizer.eos_token_id:
        raise ValueError(
            f"pretrained = {pretrained}: the end of a text is id {tokenizer.eos_token_id} for its tokenizer, but id"
            f" {end} for its text tower (eos_token_id); {fix}"
        )


def load_tower(pretrained: str | None, config: PretrainedConfig, *, modality: str) -> LoadedTower:
    """Return one tower of a pair.

    Args:
        pretrained: as in `pair_config`.
        config: result of `pair_config`.
        modality: one with a tower.

    Raises:
        ValueError: if the checkpoint cannot be read, or a weight is missing.
    """
    complete: Any = transformers_model(pretrained, config)
    parts = FAMILIES[config.model_type].towers[modality]
    head = nn.Sequential(*(complete.get_submodule(name) for name in parts.head))
    for name in parts.head:
        complete.set_submodule(name, _FirstArgument())
    bias = getattr(complete, "logit_bias", None)
    projection = PairProjection(
        pooling=parts.pooling,
        head=head,
        dim=shared_space(config).dim,
        logit_scale=float(getattr(complete, parts.scale).detach()),
        logit_bias=None if bias is None else float(bias.detach()),
        checkpoint=str(pretrained),
        takes_mask=config.model_type == NAFLEX and modality == "image",
    )
    return LoadedTower(complete.get_submodule(parts.model), projection)


class _FirstArgument(nn.Module):
    """In place of a module that the projection contains: the tower still calls it."""

    def forward(self, hidden: Tensor, *_: Any) -> Tensor:
        """Return the first argument."""
        return hidden


def complete_pair(
    config: PretrainedConfig,
    towers: Mapping[str, LoadedTower],
    *,
    logit_scale: Tensor,
    logit_bias: Tensor | None,
) -> PreTrainedModel:
    """Return the complete model of the library with the weights of its towers, the opposite of `load_tower`.

    Args:
        config: of the complete model.
        towers: by modality, all of them.
        logit_scale: logarithm of the scale, scalar.
        logit_bias: scalar; None for a pair without a bias.
    """
    complete: Any = transformers_model(None, config)
    state = dict(complete.state_dict())
    for modality, parts in FAMILIES[config.model_type].towers.items():
        model, projection = towers[modality]
        weights = {f"{parts.model}.{name}": tensor for name, tensor in model.state_dict().items()}
        for number, name in enumerate(parts.head):
            module = projection.head.get_submodule(str(number))
            weights |= {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}
        state |= weights
    for parts in FAMILIES[config.model_type].towers.values():
        state[parts.scale] = logit_scale.detach().reshape(state[parts.scale].shape)
    if logit_bias is not None and "logit_bias" in state:
        state["logit_bias"] = logit_bias.detach().reshape(complete.logit_bias.shape)
    complete.load_state_dict(state)
    result: PreTrainedModel = complete.eval()
    return result
