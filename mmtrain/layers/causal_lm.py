"""A causal language model of transformers that takes embeddings as input.

It comes from the hub, from a folder, or from a configuration with random weights.

Logits are computed only for requested tokens. With a large vocabulary, the logits of all tokens would be the largest
tensor of a training step.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from mmtrain.annotations import NonNegativeInt
from mmtrain.layers.decoder import Decoding, draws, generation_config
from mmtrain.layers.finetuning import Tuning, frozen_modules, tune
from mmtrain.layers.foreign_model import stem_and_blocks
from mmtrain.layers.splice import within_rows
from mmtrain.layers.transformers_model import (
    complete_model,
    other_parts,
    transformers_config,
    transformers_model,
)
from mmtrain.types import DialogueTarget

MODEL_TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


@dataclass(frozen=True, kw_only=True)
class CausalLMSource:
    """Source of the language model, and how it is trained.

    Attributes:
        name: a folder or a name on the Hugging Face hub; None for random weights.
        config: for random weights: model_type and sizes as in config.json. Ignored if `name` is set.
        bits: 4 or 8 to quantize the weights of `name` and train adapters (QLoRA, 2305.14314); needs bitsandbytes. None
            for float32.
        freeze: True freezes all parameters; N freezes the embeddings and the N lowest blocks.
        checkpointing: activation checkpointing per block.
        peft: a configuration of `peft`, such as LoraConfig, to freeze the weights and train adapters; None for none.
    """

    name: str | None
    config: Mapping[str, Any] | None
    bits: Literal[4, 8] | None
    freeze: bool | NonNegativeInt
    checkpointing: bool
    peft: Any

    def __post_init__(self) -> None:
        if self.name is None and self.config is None:
            raise ValueError(
                "lm.name (a folder or a name on the hub) and lm.config (model_type and sizes) are both null;"
                " set one of them"
            )
        if self.bits is None:
            return
        if self.bits not in (4, 8):
            raise ValueError(f"lm.bits = {self.bits}; set it to 4, 8 or null")
        if self.name is None or self.peft is None:
            raise ValueError(
                f"lm.bits = {self.bits} quantizes the weights of lm.name, and quantized weights cannot be trained;"
                " set lm.name and add adapters, +peft@task.language_model.lm.peft=lora, or set lm.bits to null"
            )
        if find_spec("bitsandbytes") is None:
            raise ValueError(
                f"lm.bits = {self.bits} needs bitsandbytes, which is not installed; pip install bitsandbytes,"
                " or set lm.bits to null (LoRA on weights in 32 bits)"
            )


class CausalLM(nn.Module):
    """A language model that maps embeddings to logits, and generates tokens.

    Args:
        source: where the model comes from, and how it is trained.
        known: the vocabulary, its special tokens and the maximum dialogue length.

    Raises:
        ValueError: if weights cannot be read, the type is unknown, or the training options do not fit the model.
    """

    def __init__(self, *, source: CausalLMSource, known: DialogueTarget) -> None:
        super().__init__()
        self.known = known
        self.model: Any = _model(source, known)
        self.model.generation_config = GenerationConfig()  # the checkpoint's would set options that are not requested
        config = self.model.config.get_text_config()
        self.dim: int = config.hidden_size
        positions: int | None = getattr(config, "max_position_embeddings", None)  # not every type has it
        self.num_positions = positions if positions is not None and positions > 0 else None  # XLNet says -1
        if source.bits is None:  # a quantized model may need a device that it is not on yet
            self.check_causal()
        self.never = sorted({*known.places.values(), known.pad} - {known.end})
        try:
            tune(self, Tuning(freeze=source.freeze, checkpointing=source.checkpointing, peft=source.peft))
        except ValueError as error:
            raise ValueError(f"lm.{error}") from error

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the embeddings, then the blocks."""
        return stem_and_blocks(self.model)

    def blocks(self) -> list[nn.Module]:
        """Return the blocks, lowest first."""
        return [part for layer in self.layers()[1:] for part in layer if isinstance(part, nn.Module)]

    def train(self, mode: bool = True) -> "CausalLM":
        """Set training mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in frozen_modules(self.model):
            module.eval()
        return self

    def embed(self, ids: Tensor) -> Tensor:
        """Map ids (...), int64, to (..., dim)."""
        return self.model.get_input_embeddings()(ids)

    def forward(self, embeds: Tensor, positions: Tensor, mask: Tensor | None, wanted: Tensor) -> Tensor:
        """Compute next-token logits at selected positions.

        Args:
            embeds: (P, T, dim).
            positions: (P, T), int64, from 0 in each row.
            mask: (P, 1, T, T), floating point, added to attention scores; None for a causal mask.
            wanted: (A,), int64, flat indices (line * T + column) of the selected tokens.

        Returns:
            (A, V).

        Raises:
            ValueError: if a row has more tokens than the model has positions.
        """
        longest = int(positions.max()) + 1
        if self.num_positions is not None and longest > self.num_positions:
            raise ValueError(
                f"a dialogue has {longest} tokens, including those of its media, but the language model has"
                f" {self.num_positions} positions; set lm.config.max_position_embeddings to {longest} or more, or"
                " reduce the tokens by max_length of the target or a connector with fewer tokens"
            )
        with _only(self.model.get_output_embeddings(), wanted):
            return self.model(inputs_embeds=embeds, position_ids=positions, attention_mask=mask, use_cache=False).logits

    @torch.no_grad()
    def check_causal(self) -> None:
        """Check that no token attends to later tokens. Otherwise the model would learn to copy the target.

        Raises:
            ValueError: if another last token changes the logits of an earlier one, or the model does not run on
                embeddings.
        """
        kind, training = self.model.config.model_type, self.training
        fix = "set lm.name or lm.config.model_type to a causal language model, such as llama, qwen3 or gpt2"
        self.eval()
        ids = torch.tensor([[1, 2, 5, 4], [1, 2, 5, 3]])
        positions, earlier = torch.arange(4).expand(2, -1), torch.tensor([0, 1, 2, 4, 5, 6])
        try:
            one, other = self(self.embed(ids), positions, None, earlier).chunk(2)
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(f"a {kind} does not run on embeddings of tokens and media: {error}; {fix}") from error
        finally:
            self.train(training)
        if not torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max())):
            raise ValueError(f"a {kind} attends to later tokens, so it would see the answers; {fix}")

    @torch.no_grad()
    def check_packing(self) -> None:
        """Check that rows packed into one line do not attend to each other.

        Raises:
            ValueError: if the first of two rows changes the logits of the second, as in models with a recurrent state.
        """
        kind, training = self.model.config.model_type, self.training
        self.eval()
        ids = torch.tensor([[3, 4, 5, 6], [1, 2, 5, 6]])
        row, positions = torch.tensor([[0, 0, 1, 1]] * 2), torch.tensor([[0, 1, 0, 1]] * 2)
        try:
            logits = self(self.embed(ids), positions, within_rows(row, torch.float32), torch.tensor([3, 7]))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ValueError(f"a {kind} accepts no mask that separates rows on a line: set pack to null") from error
        finally:
            self.train(training)
        if not torch.allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5):
            raise ValueError(f"in a {kind} rows that share a line attend to each other: set pack to null")

    @torch.no_grad()
    def generate(self, embeds: Tensor, mask: Tensor, rows: Tensor, decoding: Decoding) -> Tensor:
        """Generate one answer per row, in evaluation mode, with a KV cache and without collectives.

        Args:
            embeds: (B, T, dim), the prompts, padded on the left.
            mask: (B, T), bool, True where a token is valid.
            rows: (B,), int64, row ids, which seed the draws of `sample`.
            decoding: decoding options.

        Returns:
            (B, N), int64; ids after the end token are meaningless.
        """
        known = self.known
        config = generation_config(
            decoding,
            max_new_tokens=decoding.max_new_tokens or known.max_length,
            never=self.never,
            start=None,
            end=known.end,
            pad=known.pad,
        )
        return self.model.generate(
            inputs_embeds=embeds,
            attention_mask=mask.long(),
            generation_config=config,
            logits_processor=draws(decoding, rows),
        )


@contextmanager
def _only(head: nn.Module, wanted: Tensor) -> Iterator[None]:
    """Within the context, compute the output layer only for the selected tokens: (A, dim) of (P, T, dim)."""
    handle = head.register_forward_pre_hook(lambda module, given: (given[0].flatten(0, 1)[wanted],))
    try:
        yield
    finally:
        handle.remove()


def _model(source: CausalLMSource, known: DialogueTarget) -> Any:
    sizes = source.config if source.name is None else None
    if sizes is not None:
        marks = {"vocab_size": len(known.names), "bos_token_id": None, "eos_token_id": known.end}
        sizes = {**sizes, **marks, "pad_token_id": known.pad}
    config = _causal(transformers_config(source.name, sizes, model_types=MODEL_TYPES))
    if parts := other_parts(config):
        origin = f"lm.name = {source.name}" if source.name is not None else "lm.config"
        text = config.get_text_config().model_type
        raise ValueError(f"{origin} is of type {config.model_type}, {complete_model(parts, text)}")
    if source.bits is not None:
        return _in_few_bits(source)
    model: Any = transformers_model(source.name, config, kind=AutoModelForCausalLM)
    if len(known.names) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(known.names), mean_resizing=False)
    return model


def _causal(config: PretrainedConfig) -> PretrainedConfig:
    """Set `is_decoder` for a model type that can be an encoder or a decoder, such as BERT."""
    if not config.is_encoder_decoder and "is_decoder" in config.to_dict():
        config.update({"is_decoder": True})
    return config


def _in_few_bits(source: CausalLMSource) -> Any:
    assert source.name is not None
    kept = BitsAndBytesConfig(
        load_in_4bit=source.bits == 4,
        load_in_8bit=source.bits == 8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )
    config = _causal(AutoConfig.from_pretrained(source.name, trust_remote_code=False))
    return AutoModelForCausalLM.from_pretrained(
        source.name, config=config, quantization_config=kept, trust_remote_code=False
    )
