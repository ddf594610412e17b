"""A text decoder that attends to features by cross-attention: GPT-2 (Radford et al. 2019) of transformers.

Sampling uses the Gumbel-max trick (1611.00712, section 2) with one generator per row. So the generated text of a row
does not depend on the batch, on the number of ranks or on earlier draws. Special tokens that occur in no sentence
(padding, start, unknown) are never generated.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

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

from mmtrain.annotations import (
    Depth,
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
    Seed,
    Size,
    WidthRatio,
)
from mmtrain.layers.transformers_model import transformers_config, transformers_model
from mmtrain.types import Features, TokenTarget

Method = Literal["greedy", "beam", "sample"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """Sizes of a decoder.

    Attributes:
        dim: hidden width; input features are projected to it.
        depth: number of blocks, each with self-attention, cross-attention and MLP.
        num_heads: number of attention heads.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: dropout probability on embeddings, attention weights and residual branches.
        pretrained: a folder or a name on the hub of a GPT-2. Its sizes override those above; cross-attention is new.
    """

    dim: Size
    depth: Depth
    num_heads: Size
    mlp_ratio: WidthRatio
    dropout: Fraction
    pretrained: str | None

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"decoder.depth = {self.depth} is below 1; set it to 1 or more")
        if self.dim % self.num_heads:
            raise ValueError(
                f"decoder.dim = {self.dim} is not divisible by decoder.num_heads = {self.num_heads};"
                f" set decoder.dim to {-(-self.dim // self.num_heads) * self.num_heads}"
            )


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Options of text generation.

    Attributes:
        method: greedy, beam or sample.
        num_beams: number of beams of `beam`.
        max_new_tokens: maximum length, including the end token; None for the maximum length of a target.
        top_p: for `sample`: draw from the smallest set of tokens with this total probability (1904.09751).
        temperature: for `sample`: softmax temperature.
        length_penalty: for `beam`: score is log probability / length ** length_penalty; above 0 favours long text.
        no_repeat_ngram_size: no n-gram of this size occurs twice; 0 disables the restriction.
        seed: for `sample`: seed of the draws, together with the row id.
    """

    method: Method
    num_beams: Size
    max_new_tokens: PositiveInt | None
    top_p: PositiveFraction
    temperature: PositiveFloat
    length_penalty: float
    no_repeat_ngram_size: NonNegativeInt
    seed: Seed

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"decoding.method = {self.method}; set it to {', '.join(METHODS)}")
        if self.num_beams < 1:
            raise ValueError(f"decoding.num_beams = {self.num_beams} is below 1; set it to 4, for example")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"decoding.max_new_tokens = {self.max_new_tokens} is below 1; set it to null or 20")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"decoding.top_p = {self.top_p} is not in (0, 1]; set it to 0.9, or 1 for all tokens")
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(f"decoding.temperature = {self.temperature} is not above 0; set it to 1, or method=greedy")
        if self.no_repeat_ngram_size < 0:
            raise ValueError(f"decoding.no_repeat_ngram_size = {self.no_repeat_ngram_size}; set it to 0 or more")


class Decoder(nn.Module):
    """A decoder from features to tokens.

    Args:
        read_dim: width of the features.
        shape: sizes of the decoder.
        known: the vocabulary, its special tokens and the maximum length.

    Raises:
        ValueError: if weights cannot be read, or if their vocabulary or number of positions does not fit the target.
    """

    def __init__(self, *, read_dim: int, shape: DecoderShape, known: TokenTarget) -> None:
        super().__init__()
        self.known = known
        config = _config(shape, known)
        new = tuple(f"transformer.h.{i}.{part}" for i in range(config.n_layer) for part in ("crossattention", "ln_c"))
        model: Any = transformers_model(shape.pretrained, config, kind=GPT2LMHeadModel, unused=new)
        model.generation_config = GenerationConfig()  # the checkpoint's would set options that are not requested
        self.model = model
        self.bridge = nn.Sequential(nn.LayerNorm(read_dim), nn.Linear(read_dim, config.n_embd))
        marks = {known.pad, known.start, *(i for i, name in enumerate(known.names) if name in ("[UNK]", "[MASK]"))}
        self.never = sorted(marks - {known.end})

    def forward(self, ids: Tensor, read: Features) -> Tensor:
        """Map ids (B, L), int64, tokens (B, T, read_dim), mask (B, T) to next-token logits (B, L, V).

        A row without any valid token attends to one position of zeros.
        """
        # ids need no mask: attention is causal, and padding follows all tokens that count
        return self.model(input_ids=ids, use_cache=False, **self._memory(read)).logits

    def _memory(self, read: Features) -> dict[str, Tensor]:
        tokens, mask = read.cleared()
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        some = mask | (first & ~mask.any(dim=1, keepdim=True))
        return {"encoder_hidden_states": self.bridge(tokens), "encoder_attention_mask": some.long()}

    @torch.no_grad()
    def generate(self, read: Features, rows: Tensor, decoding: Decoding) -> Tensor:
        """Generate one sentence per row, in evaluation mode, with a KV cache and without collectives.

        Args:
            read: tokens (B, T, read_dim), mask (B, T).
            rows: (B,), int64, row ids, which seed the draws of `sample`.
            decoding: decoding options.

        Returns:
            (B, N), int64, without the start token; ids after the end token are meaningless.
        """
        start = torch.full((len(rows), 1), self.known.start, device=rows.device)
        if not len(rows):
            return start[:, 1:]
        if start.is_meta:  # meta tensors have no values: assume the maximum length, see mmtrain/modes/plan/watch.py
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
        longest = self.known.max_length - 1  # later positions are never trained
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
    """Build the library's generation config. Sampling is done by the processors of `draws`.

    Args:
        decoding: decoding options.
        max_new_tokens: maximum length, including the end token.
        never: ids that are never generated.
        start: id at the start of every sentence, if any.
        end: id at the end of every sentence.
        pad: padding id.
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
    """Build the config, from the checkpoint or from the sizes, with cross-attention."""
    longest = known.max_length - 1  # the end token is never an input
    config = (
        _sized(shape, known, longest) if shape.pretrained is None else _of_weights(shape.pretrained, known, longest)
    )
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), shape.dropout)
    # no pad token: the library would warn about it in the ids, and generation does not need it
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
        bos_token_id=known.start,  # the library's defaults exceed a small vocabulary
        eos_token_id=known.end,
    )


def _of_weights(pretrained: str, known: TokenTarget, longest: int) -> GPT2Config:
    config = transformers_config(pretrained, None, model_types=("gpt2",))
    assert isinstance(config, GPT2Config)
    if config.vocab_size != len(known.names):
        raise ValueError(
            f"decoder.pretrained = {pretrained} has {config.vocab_size} tokens, but the target has"
            f" {len(known.names)}\n"
            "    set the target's tokenizer to that of the weights, or set decoder.pretrained to null"
        )
    if config.n_positions < longest:
        raise ValueError(
            f"decoder.pretrained = {pretrained} has {config.n_positions} positions, but a target can have {longest}"
            f" tokens; set max_length of the target to {config.n_positions + 1}"
        )
    return config


class _Gumbel(LogitsProcessor):
    """Add Gumbel noise, so that the argmax is a draw from the softmax; one generator per row."""

    def __init__(self, seeds: list[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add noise to (B, V)."""
        # on the CPU, so that the draws of a row are equal on every device
        noise = [torch.empty(scores.shape[1]).exponential_(generator=g).log_().neg_() for g in self.generators]
        return scores + torch.stack(noise).to(scores)


def draws(decoding: Decoding, rows: Tensor) -> LogitsProcessorList:
    """Return processors that turn the argmax into a draw. The library runs them after it removes excluded tokens.

    Args:
        decoding: decoding options; without `sample`, the list is empty.
        rows: (B,), int64, row ids, which seed the draws.
    """
    if decoding.method != "sample":
        return LogitsProcessorList()
    parts: list[LogitsProcessor] = [TemperatureLogitsWarper(float(decoding.temperature))]
    if decoding.top_p < 1.0:
        parts.append(TopPLogitsWarper(float(decoding.top_p)))
    seeds = [(decoding.seed * 1_000_003 + row) % 2**63 for row in rows.tolist()]
    return LogitsProcessorList([*parts, _Gumbel(seeds)])
