"""A decoder that writes tokens and reads features by cross-attention: GPT-2 (Radford et al. 2019) of transformers.

Unusual here: a sample is drawn by the Gumbel-max trick (1611.00712, section 2) with a generator a row, so that what is
written of a row does not depend on the rows beside it, on the number of ranks or on what was drawn before; and marks
that no sentence holds (padding, start, unknown) are never written.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from mmtrain.layers.transformers_model import transformers_config, transformers_model
from mmtrain.types import Features, TokenTarget

METHODS = ("greedy", "beam", "sample")


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """The sizes of a decoder.

    Attributes:
        dim: its width; what it reads is brought to it.
        depth: blocks of self-attention, cross-attention and MLP.
        num_heads: of each attention.
        mlp_ratio: width of the MLP over `dim`.
        dropout: of embeddings, attention and what each part adds.
        pretrained: a folder, or a name of the hub, of a GPT-2, whose sizes then hold; its cross-attention is new.
    """

    dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    dropout: float
    pretrained: str | None

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"decoder.depth = {self.depth} leaves nothing that reads; set it to 1 or more")
        if self.dim % self.num_heads:
            raise ValueError(
                f"decoder.dim = {self.dim} is not divisible by decoder.num_heads = {self.num_heads};"
                f" set decoder.dim to {-(-self.dim // self.num_heads) * self.num_heads}"
            )


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How sentences are written.

    Attributes:
        method: greedy, beam or sample.
        num_beams: of beam.
        max_new_tokens: the end mark among them; None for as many as a target can have.
        top_p: of sample, the smallest set of tokens with so much probability is drawn from (1904.09751).
        temperature: of sample.
        length_penalty: of beam, above 0 favours long sentences: log probability / length ** length_penalty.
        no_repeat_ngram_size: no n-gram of this size comes twice in a sentence; 0 lets it.
        seed: of sample, the draws of a row follow from it and the row's number.
    """

    method: str
    num_beams: int
    max_new_tokens: int | None
    top_p: float
    temperature: float
    length_penalty: float
    no_repeat_ngram_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"decoding.method = {self.method}; set it to {', '.join(METHODS)}")
        if self.num_beams < 1:
            raise ValueError(f"decoding.num_beams = {self.num_beams} keeps no sentence; set it to 4, say")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"decoding.max_new_tokens = {self.max_new_tokens} writes nothing; set it to null or 20")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"decoding.top_p = {self.top_p} is not a share above 0; set it to 0.9, or 1 for all")
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(f"decoding.temperature = {self.temperature} is not above 0; set it to 1, or method=greedy")
        if self.no_repeat_ngram_size < 0:
            raise ValueError(f"decoding.no_repeat_ngram_size = {self.no_repeat_ngram_size}; set it to 0 or more")


class Decoder(nn.Module):
    """Tokens from features.

    Args:
        read_dim: width of the features.
        shape: its sizes.
        known: the vocabulary, the marks and the longest sentence.

    Raises:
        ValueError: when weights cannot be read, or are of another vocabulary or of shorter sentences.
    """

    def __init__(self, *, read_dim: int, shape: DecoderShape, known: TokenTarget) -> None:
        super().__init__()
        self.known = known
        config = _config(shape, known)
        new = tuple(f"transformer.h.{i}.{part}" for i in range(config.n_layer) for part in ("crossattention", "ln_c"))
        model: Any = transformers_model(shape.pretrained, config, kind=GPT2LMHeadModel, unused=new)
        model.generation_config = GenerationConfig()  # that of weights would fill up what is not asked for
        self.model = model
        self.bridge = nn.Sequential(nn.LayerNorm(read_dim), nn.Linear(read_dim, config.n_embd))
        marks = {known.pad, known.start, *(i for i, name in enumerate(known.names) if name in ("[UNK]", "[MASK]"))}
        self.never = sorted(marks - {known.end})

    def forward(self, ids: Tensor, read: Features) -> Tensor:
        """Map ids (B, L), int64, tokens (B, T, read_dim), mask (B, T) to logits (B, L, V) of the token after each.

        A row that has nothing to read reads one position of zeros.
        """
        # without a mask of the ids: none looks ahead, and padding is behind all that count
        return self.model(input_ids=ids, use_cache=False, **self._memory(read)).logits

    def _memory(self, read: Features) -> dict[str, Tensor]:
        tokens, mask = read.cleared()
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        some = mask | (first & ~mask.any(dim=1, keepdim=True))
        return {"encoder_hidden_states": self.bridge(tokens), "encoder_attention_mask": some.long()}

    @torch.no_grad()
    def generate(self, read: Features, rows: Tensor, decoding: Decoding) -> Tensor:
        """Write a sentence a row, in evaluation mode and with a cache, without a collective.

        Args:
            read: tokens (B, T, read_dim), mask (B, T).
            rows: (B,), int64, numbers of the rows, from which the draws of `sample` follow.
            decoding: how.

        Returns:
            (B, N), int64, without the start mark; what stands behind an end mark means nothing.
        """
        start = torch.full((len(rows), 1), self.known.start, device=rows.device)
        if not len(rows):
            return start[:, 1:]
        if start.is_meta:  # without content they are as long as can be, see mmtrain/plan/watch.py
            return start.expand(-1, self._longest(decoding))
        training = self.training
        self.eval()
        ids = self.model.generate(
            input_ids=start,
            attention_mask=torch.ones_like(start),
            generation_config=self._generation_config(decoding),
            logits_processor=draws(decoding, rows),
            **self._memory(read),
        )
        self.train(training)
        return ids[:, 1:]

    def _longest(self, decoding: Decoding) -> int:
        longest = self.known.max_length - 1  # no position behind it was ever trained
        return min(decoding.max_new_tokens or longest, longest)

    def _generation_config(self, decoding: Decoding) -> GenerationConfig:
        known = self.known
        return generation_config(
            decoding,
            max_new_tokens=self._longest(decoding),
            never=self.never,
            start=known.start,
            end=known.end,
            pad=known.pad,
        )


def generation_config(
    decoding: Decoding, *, max_new_tokens: int, never: list[int], start: int | None, end: int, pad: int
) -> GenerationConfig:
    """How sentences are written, as the library takes it; what `sample` draws is for `draws`.

    Args:
        decoding: how.
        max_new_tokens: the end mark among them.
        never: ids that are not written.
        start: the id that every sentence starts with, if one does.
        end: the id that every sentence ends with.
        pad: the id that fills a row up.
    """
    beams = {"num_beams": decoding.num_beams, "length_penalty": decoding.length_penalty}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        no_repeat_ngram_size=decoding.no_repeat_ngram_size,
        suppress_tokens=never or None,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=pad,
        **(beams if decoding.method == "beam" and decoding.num_beams > 1 else {}),
    )


def _config(shape: DecoderShape, known: TokenTarget) -> GPT2Config:
    """Of the weights or of the sizes, with cross-attention."""
    longest = known.max_length - 1  # the end mark is never read
    config = (
        _sized(shape, known, longest) if shape.pretrained is None else _of_weights(shape.pretrained, known, longest)
    )
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), shape.dropout)
    # without a pad: the library warns of it in the ids, and it needs none to write
    marks = {"bos_token_id": known.start, "eos_token_id": known.end, "pad_token_id": None}
    config.update({"add_cross_attention": True, **dropout, **marks})
    return config


def _sized(shape: DecoderShape, known: TokenTarget, longest: int) -> GPT2Config:
    return GPT2Config(
        vocab_size=len(known.names),
        n_positions=longest,
        n_embd=shape.dim,
        n_layer=shape.depth,
        n_head=shape.num_heads,
        n_inner=round(shape.dim * shape.mlp_ratio),
        bos_token_id=known.start,  # the library's own are beyond a small vocabulary
        eos_token_id=known.end,
    )


def _of_weights(pretrained: str, known: TokenTarget, longest: int) -> GPT2Config:
    config = transformers_config(pretrained, None, model_types=("gpt2",))
    assert isinstance(config, GPT2Config)
    if config.vocab_size != len(known.names):
        raise ValueError(
            f"decoder.pretrained = {pretrained} knows {config.vocab_size} tokens, but the target has"
            f" {len(known.names)}\n"
            "    give the target the tokenizer of the weights, or set decoder.pretrained to null"
        )
    if config.n_positions < longest:
        raise ValueError(
            f"decoder.pretrained = {pretrained} has {config.n_positions} positions, but a target can have {longest}"
            f" tokens; set max_length of the target to {config.n_positions + 1}"
        )
    return config


class _Gumbel(LogitsProcessor):
    """The largest of logits and Gumbel noise is a draw from their softmax; a generator a row."""

    def __init__(self, seeds: list[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add noise to (B, V)."""
        # on the CPU, so that a row's draws are the same on every device
        noise = [torch.empty(scores.shape[1]).exponential_(generator=g).log_().neg_() for g in self.generators]
        return scores + torch.stack(noise).to(scores)


def draws(decoding: Decoding, rows: Tensor) -> LogitsProcessorList:
    """What makes the best token a drawn one; the library runs these after the tokens that are ruled out.

    Args:
        decoding: how; nothing is drawn unless by `sample`.
        rows: (B,), int64, numbers of the rows, from which the draws follow.
    """
    if decoding.method != "sample":
        return LogitsProcessorList()
    parts: list[LogitsProcessor] = [TemperatureLogitsWarper(float(decoding.temperature))]
    if decoding.top_p < 1.0:
        parts.append(TopPLogitsWarper(float(decoding.top_p)))
    seeds = [(decoding.seed * 1_000_003 + row) % 2**63 for row in rows.tolist()]
    return LogitsProcessorList([*parts, _Gumbel(seeds)])
