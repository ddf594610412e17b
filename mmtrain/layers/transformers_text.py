"""Text models of the transformers library as encoders: what is under a False mask stays out, parts without use go.

The models differ in where their parts are, which `FAMILIES` says, and in what they read. SigLIP was trained on texts
padded to its longest and read with their padding (2303.15343), so here it fills up every text by itself. The padding
is that of the checkpoint's tokenizer: config.json of SigLIP 2 says nothing, and its class's default is another token.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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

from mmtrain.layers.pooling import POOLS, make_pool
from mmtrain.layers.transformers_model import export_transformers, transformers_model
from mmtrain.types import Features


@dataclass(frozen=True)
class Family:
    """Where the parts of a model are, by dotted names; what is in neither `stem` nor `blocks` is its top.

    Attributes:
        stem: what comes before the blocks, and what all of them read; a model may lack some of it.
        blocks: the list of them.
        positions: the table of learned positions; None where there is none.
        unused: what makes one vector of the tokens, of no use here.
        kind: the class, or the library's choice.
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
    # deberta of the first version is not here: the library's does not run under autocast
    "deberta-v2": Family(stem=("embeddings", "encoder.rel_embeddings", "encoder.LayerNorm", "encoder.conv")),
    "modernbert": Family(blocks="layers", positions=None),
    **dict.fromkeys(("t5", "mt5", "umt5"), _T5),
    "clip_text_model": _CLIP,
    "siglip_text_model": _SIGLIP,
    "siglip2_text_model": replace(_SIGLIP, kind=Siglip2TextModel),
}
# models of text and pictures, of which the text tower is taken
TOWERS = ("clip", "siglip", "siglip2")


class TransformersText(nn.Module):
    """A text model whose last hidden states are the tokens, or one token made of them.

    Args:
        pretrained: a folder, or a name of the hub; None for random weights.
        config: of the model, or of one with a text tower; its type is in `FAMILIES` or `TOWERS`.
        max_length: the longest text in tokens; learned positions are repeated when they are fewer.
        pooling: tokens: every token; class, mean or last: one token, the first, the mean or the last of the valid
            ones; auto: as the weights' own 1_Pooling/config.json says (sentence-transformers), else tokens.

    Raises:
        ValueError: for an unknown pooling and a checkpoint that cannot be read.
    """

    def __init__(self, *, pretrained: str | None, config: PretrainedConfig, max_length: int, pooling: str) -> None:
        super().__init__()
        if pooling not in ("auto", "tokens", *POOLS):
            raise ValueError(f"pooling = {pooling}; set it to auto, tokens, {', '.join(POOLS)}")
        config = config.text_config if config.model_type in TOWERS else config
        self.family = FAMILIES[config.model_type]
        model: Any = transformers_model(pretrained, config, kind=self.family.kind, unused=self.family.unused)
        for name in self.family.unused:
            model.set_submodule(name, nn.Identity())
        _lengthen(model, self.family.positions, max_length)
        self.model = model
        self.dim: int = config.hidden_size
        self.pad: int = config.pad_token_id or 0
        if pretrained is not None and self.family.reads_padding:  # its configuration often has another id
            self.pad = _padding_of(pretrained, otherwise=self.pad)
        if pooling == "auto":
            pooling = "tokens" if pretrained is None else _trained_pooling(pretrained)
        self.pooling = pooling
        self.pool = None if pooling == "tokens" else make_pool(pooling)

    def export(self, folder: Path) -> str:
        """Write it as transformers does; the code that loads it. A pooling is described there, not done."""
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
        return f"{code}[:, :values.shape[1]]" if self.family.reads_padding else code

    def _longest(self) -> int:
        """Learned positions of a model that reads padding."""
        assert self.family.positions is not None
        table = self.model.get_submodule(self.family.positions)
        assert isinstance(table, nn.Embedding)
        return table.num_embeddings

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Embeddings and what all blocks read, then the blocks."""
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
            hidden = self.model(input_ids=F.pad(ids, (0, longest - ids.shape[1]), value=self.pad)).last_hidden_state
            valid = there.expand(-1, longest) if self.pool is not None else mask
            hidden = hidden[:, : valid.shape[1]]
        else:
            attended = (mask | ~there).long()  # a row of nothing reads anywhere; it is cleared
            hidden, valid = self.model(input_ids=ids, attention_mask=attended).last_hidden_state, mask
        features = Features(hidden, valid).cleared()
        return features if self.pool is None else Features(self.pool(features).unsqueeze(1), there)


def _lengthen(model: PreTrainedModel, positions: str | None, max_length: int) -> None:
    """Repeat learned positions, if there are any and they are too few, as Longformer does (2004.05150, section 5).

    Texts that are no longer than those that the weights know are read as before.
    """
    table = None if positions is None else dict(model.named_modules()).get(positions)
    if positions is None or table is None:
        return
    assert isinstance(table, nn.Embedding)
    first = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa counts from behind that of padding
    if len(table.weight) - first >= max_length:
        return
    weight = table.weight.detach()
    places = torch.arange(max_length, device=weight.device) % (len(weight) - first)
    weight = torch.cat([weight[:first], weight[first:][places]])
    longer = nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=table.padding_idx)
    model.set_submodule(positions, longer)
    model.config.update({"max_position_embeddings": len(weight)})  # what is exported says it
    place = model.get_submodule(positions.rpartition(".")[0])
    for name, buffer in list(place.named_buffers(recurse=False)):
        assert name in ("position_ids", "token_type_ids"), name
        numbers = torch.arange(len(weight)) if name == "position_ids" else torch.zeros(len(weight), dtype=torch.long)
        place.register_buffer(name, numbers.unsqueeze(0).to(buffer.device), persistent=False)


def _padding_of(pretrained: str, *, otherwise: int) -> int:
    """The id with which the tokenizer of a checkpoint pads; `otherwise` where there is no tokenizer."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(pretrained, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError):
        return otherwise  # the input that reads texts with it explains why
    words = tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)
    if len(words) < 2 or tokenizer.pad_token_id is None:  # without files the library makes one of its marks alone
        return otherwise
    return int(tokenizer.pad_token_id)


def _trained_pooling(pretrained: str) -> str:
    """What sentence-transformers wrote beside the weights; tokens where it wrote nothing."""
    folder = Path(pretrained)
    file = folder / "1_Pooling" / "config.json"
    if not folder.is_dir():
        try:
            file = Path(hf_hub_download(pretrained, "1_Pooling/config.json"))
        except EntryNotFoundError:
            return "tokens"
    if not file.is_file():
        return "tokens"
    said = json.loads(file.read_text(encoding="utf-8"))
    keys = {"class": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "last": "pooling_mode_lasttoken"}
    names = [name for name, key in keys.items() if said.get(key)]
    if len(names) != 1:
        modes = ", ".join(key for key, value in said.items() if key.startswith("pooling_mode") and value)
        raise ValueError(
            f"pooling = auto, but pretrained = {pretrained} was trained with {modes or 'none'};"
            f" set pooling to tokens, {', '.join(keys)}"
        )
    return names[0]


def expanded(pretrained: str | None) -> str | None:
    """A name or folder with ~ written out."""
    return str(Path(pretrained).expanduser()) if pretrained is not None and pretrained.startswith("~") else pretrained
