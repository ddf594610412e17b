"""Text models of the transformers library as encoders.

Tokens under a False mask have no effect, and parts that do not affect the tokens are removed.

The models differ in the location of their parts, listed in `FAMILIES`, and in their input. SigLIP was trained on texts
padded to its maximum length, without a mask (2303.15343), so every text is padded here. The padding token is that of
the checkpoint's tokenizer: config.json of SigLIP 2 does not contain it, and the default of its class is another token.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForTextEncoding,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    Siglip2TextModel,
    SiglipTextModel,
)

from mmtrain.layers.pooling import make_pool
from mmtrain.layers.transformers_model import export_transformers, transformers_model
from mmtrain.types import Features


@dataclass(frozen=True)
class Family:
    """Location of the parts of a model, by dotted names. Parts in neither `stem` nor `blocks` are its top.

    Attributes:
        stem: parts before the blocks, and parts that all blocks use; some may be absent from a model.
        blocks: the list of blocks.
        positions: the table of learned positions; None if there is none.
        unused: parts that pool the tokens to one vector; they are removed.
        kind: class of the model, or an auto class.
        reads_padding: whether it was trained on padded texts without a mask.
    """

    stem: tuple[str, ...] = ("embeddings",)
    blocks: str = "encoder.layer"
    positions: str | None = "embeddings.position_embeddings"
    unused: tuple[str, ...] = ()
    kind: Any = AutoModel
    reads_padding: bool = False


_BERT = Family(unused=("pooler",))
_T5 = Family(stem=("shared",), blocks="encoder.block", positions=None, kind=AutoModelForTextEncoding)
_CLIP = Family(blocks="encoder.layers", positions="embeddings.position_embedding", kind=AutoModelForTextEncoding)
_SIGLIP = replace(_CLIP, kind=SiglipTextModel, unused=("head",), reads_padding=True)
FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "data2vec-text"), _BERT),
    "mpnet": Family(stem=("embeddings", "encoder.relative_attention_bias"), unused=("pooler",)),
    "electra": Family(stem=("embeddings", "embeddings_project")),
    "distilbert": Family(blocks="transformer.layer"),
    # deberta (version 1) is not supported: the library's implementation fails under autocast
    "deberta-v2": Family(stem=("embeddings", "encoder.rel_embeddings", "encoder.LayerNorm", "encoder.conv")),
    "modernbert": Family(blocks="layers", positions=None),
    **dict.fromkeys(("t5", "mt5", "umt5"), _T5),
    "clip_text_model": _CLIP,
    "siglip_text_model": _SIGLIP,
    "siglip2_text_model": replace(_SIGLIP, kind=Siglip2TextModel),
}
# text towers that `mmtrain.layers.transformers_pair` loads as a part of their pair
TOWER_FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(("chinese_clip_text_model", "clap_text_model"), _BERT),
    "altclip_text_model": Family(
        stem=("roberta.embeddings",),
        blocks="roberta.encoder.layer",
        positions="roberta.embeddings.position_embeddings",
        unused=("roberta.pooler",),
    ),
}
Pooling = Literal["auto", "tokens", "class", "mean", "last"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
# image-text models; only the text tower is used
TOWERS = ("clip", "siglip", "siglip2")


class TransformersText(nn.Module):
    """A text model whose last hidden states are the tokens, optionally pooled to one token.

    Args:
        pretrained: a folder or a name on the hub; None for random weights.
        config: of the model, or of one with a text tower; its type is in `FAMILIES` or `TOWERS`.
        max_length: maximum length in tokens; learned positions are repeated if there are fewer.
        pooling: "tokens" keeps every token. "class", "mean" and "last" give one token: the first, the mean or the last
            of the valid tokens. "auto" follows the checkpoint's 1_Pooling/config.json (sentence-transformers), else
            "tokens".
        model: a model that is already loaded; None to load it.
        keeps_padding: whether the padding of a model that was trained on padded texts is a part of the tokens.

    Raises:
        ValueError: for an unknown pooling, or a checkpoint that cannot be read.
    """

    def __init__(
        self,
        *,
        pretrained: str | None,
        config: PretrainedConfig,
        max_length: int,
        pooling: Pooling,
        model: Any = None,
        keeps_padding: bool = False,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling = {pooling}; set it to {', '.join(POOLINGS)}")
        config = config.text_config if config.model_type in TOWERS else config
        self.family = {**FAMILIES, **TOWER_FAMILIES}[config.model_type]
        if model is None:
            model = transformers_model(pretrained, config, kind=self.family.kind, unused=self.family.unused)
        for name in self.family.unused:
            if getattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], None) is not None:
                model.set_submodule(name, nn.Identity())
        _lengthen(model, self.family.positions, max_length)
        self.model = model
        self.keeps_padding = keeps_padding
        # AltCLIP ends with a linear map
        self.dim: int = config.project_dim if config.model_type == "altclip_text_model" else config.hidden_size
        self.pad: int = config.pad_token_id or 0
        self.masks_padding = self.pads_left = False
        if pretrained is not None and self.family.reads_padding:
            tokenizer = _tokenizer_of(pretrained)
            if tokenizer is not None and tokenizer.pad_token_id is not None:  # the config often has another id
                self.pad = int(tokenizer.pad_token_id)
            # a complete pair is called with what its processor returns
            self.masks_padding = keeps_padding and "attention_mask" in getattr(tokenizer, "model_input_names", ())
            self.pads_left = keeps_padding and getattr(tokenizer, "padding_side", "right") == "left"
        self.pooling: str = pooling
        if pooling == "auto":
            self.pooling = "tokens" if pretrained is None else _trained_pooling(pretrained)
        self.pool = None if self.pooling == "tokens" else make_pool(self.pooling)

    def export(self, folder: Path) -> str:
        """Write the model in the format of transformers, and return code that loads it. A pooling is only a comment."""
        pooled = f"  # its {self.pooling} over the mask is the one token"
        call = "input_ids=values, attention_mask=mask"
        if self.family.reads_padding:
            call = (
                f"input_ids=torch.nn.functional.pad(values.masked_fill(~mask, {self.pad}),"
                f" (0, {self._longest()} - values.shape[1]), value={self.pad})"
            )
            pooled = f"  # its {self.pooling} over all {self._longest()} places is the one token"
        code = export_transformers(self.model, call, folder)
        if self.pooling != "tokens":
            return code + pooled
        return f"{code}[:, :values.shape[1]]" if self.family.reads_padding and not self.keeps_padding else code

    def _longest(self) -> int:
        """Return the number of learned positions of a model that was trained on padding."""
        assert self.family.positions is not None
        table = self.model.get_submodule(self.family.positions)
        assert isinstance(table, nn.Embedding)
        return table.num_embeddings

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the stem (embeddings and shared parts), then the blocks."""
        parts = dict(self.model.named_modules())
        stem = tuple(parts[name] for name in self.family.stem if name in parts)
        return [stem, *((block,) for block in self.model.get_submodule(self.family.blocks))]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Map token ids (B, L), int64, mask (B, L) to tokens (B, L, dim), mask (B, L), or (B, 1, dim), (B, 1)."""
        if mask is None:
            mask = torch.ones_like(values, dtype=torch.bool)
        ids, there = values.masked_fill(~mask, self.pad), mask.any(dim=1, keepdim=True)
        if self.family.reads_padding:
            longest = self._longest()
            missing = (0, longest - ids.shape[1])
            padded, attended = F.pad(ids, missing, value=self.pad), F.pad(mask | ~there, missing)
            if self.pads_left:  # texts are valid from their first token on, so a rotation moves the padding
                places = torch.arange(longest, device=ids.device) - (longest - mask.sum(dim=1, keepdim=True))
                padded, attended = (tensor.gather(1, places % longest) for tensor in (padded, attended))
            options = {"attention_mask": attended.long()} if self.masks_padding else {}
            hidden = self.model(input_ids=padded, **options).last_hidden_state
            valid = there.expand(-1, longest) if self.pool is not None or self.keeps_padding else mask
            hidden = hidden[:, : valid.shape[1]]
        else:
            attended = (mask | ~there).long()  # an empty row attends to all positions; its output is zeroed
            hidden, valid = self.model(input_ids=ids, attention_mask=attended).last_hidden_state, mask
        features = Features(hidden, valid).cleared()
        return features if self.pool is None else Features(self.pool(features).unsqueeze(1), there)


def _lengthen(model: PreTrainedModel, positions: str | None, max_length: int) -> None:
    """Repeat learned positions, if there are any and too few, as Longformer does (2004.05150, section 5).

    The result for texts within the original number of positions is unchanged.
    """
    table = None if positions is None else dict(model.named_modules()).get(positions)
    if positions is None or table is None:
        return
    assert isinstance(table, nn.Embedding)
    first = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa counts from after the padding index
    if len(table.weight) - first >= max_length:
        return
    weight = table.weight.detach()
    places = torch.arange(max_length, device=weight.device) % (len(weight) - first)
    weight = torch.cat([weight[:first], weight[first:][places]])
    longer = nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=table.padding_idx)
    model.set_submodule(positions, longer)
    model.config.update({"max_position_embeddings": len(weight)})  # the exported config must state it
    place = model.get_submodule(positions.rpartition(".")[0])
    for name, buffer in list(place.named_buffers(recurse=False)):
        assert name in ("position_ids", "token_type_ids"), name
        numbers = torch.arange(len(weight)) if name == "position_ids" else torch.zeros(len(weight), dtype=torch.long)
        place.register_buffer(name, numbers.unsqueeze(0).to(buffer.device), persistent=False)


def _tokenizer_of(pretrained: str) -> Any:
    """Return a checkpoint's tokenizer; None if there is none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(pretrained, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError):
        return None  # the text input that uses this tokenizer reports the error
    words = tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)
    return tokenizer if len(words) >= 2 else None  # without files, the library builds one of special tokens only


def _trained_pooling(pretrained: str) -> str:
    """Return the pooling in the checkpoint's sentence-transformers file; "tokens" if there is no such file."""
    folder = Path(pretrained)
    file = folder / "1_Pooling" / "config.json"
    if not folder.is_dir():
        try:
            file = Path(hf_hub_download(pretrained, "1_Pooling/config.json"))
        except EntryNotFoundError:
            return "tokens"
    if not file.is_file():
        return "tokens"
    settings = json.loads(file.read_text(encoding="utf-8"))
    keys = {"class": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "last": "pooling_mode_lasttoken"}
    names = [name for name, key in keys.items() if settings.get(key)]
    if len(names) != 1:
        modes = ", ".join(key for key, value in settings.items() if key.startswith("pooling_mode") and value)
        raise ValueError(
            f"pooling = auto, but pretrained = {pretrained} was trained with {modes or 'none'};"
            f" set pooling to tokens, {', '.join(keys)}"
        )
    return names[0]


def expanded(pretrained: str | None) -> str | None:
    """Expand ~ in a folder name."""
    return str(Path(pretrained).expanduser()) if pretrained is not None and pretrained.startswith("~") else pretrained
