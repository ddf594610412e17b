"""The tokenizer of dialogues, from a language model or trained on them, with a chat template."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtrain.data.decoding.dialogue import Turn
from mmtrain.data.tokenizers.pretrained import load_tokenizer
from mmtrain.errors import ConfigError, SampleError

PAD, END = "<pad>", "</s>"
# Roles as words, because new special tokens would be unknown to a pretrained language model without a template
PLAIN = (
    "{% if bos_token %}{{ bos_token }}{% endif %}"
    "{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}"
    "{% if turn['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def train_tokenizer(texts: Sequence[str], *, vocab_size: int, places: Sequence[str]) -> Any:
    """Byte-level BPE (1508.07909), as a tokenizer of transformers.

    Every text can be encoded, and decoded to the same text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, *(f"<{name}>" for name in places)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False
    )


def tokenizer_of(name: str | Path, *, places: Sequence[str]) -> Any:
    """The tokenizer of a language model, with tokens for the places of media.

    Raises:
        ConfigError: if there is none, or it has no end token.
    """
    full = load_tokenizer(name, max_length=2**20).whole
    full.backend_tokenizer.no_truncation()
    if full.eos_token_id is None:
        raise ConfigError(
            f"tokenizer = {name} has no eos_token, which ends an answer\n    fix: name the tokenizer of a causal LM"
        )
    if full.pad_token_id is None:
        full.pad_token = full.eos_token
    full.add_tokens([f"<{place}>" for place in places], special_tokens=True)
    return full


def render_dialogue(tokenizer: Any, turns: list[Turn], *, template: str, asking: bool) -> str:
    """Turns as one text; with `asking`, up to the start of the answer.

    Raises:
        SampleError: if the template rejects them.
    """
    from jinja2 import TemplateError

    try:
        return str(
            tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, add_generation_prompt=asking)
        )
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise SampleError("a dialogue", f"the chat template rejects the turns {roles}: {error}") from error
