"""The tokenizer of pretrained weights: from a folder or the hub, by transformers, which is imported only then."""

from pathlib import Path
from typing import Any, NamedTuple

from mmtrain.errors import ConfigError, reason_of

MEND = "set data.inputs.text.tokenizer to a folder with tokenizer.json, to a name of the hub, or to auto"


class PretrainedTokenizer(NamedTuple):
    """A tokenizer of others.

    Attributes:
        whole: the library's, which can be saved.
        fast: the part of it that makes ids of a text, cut to a length: a `tokenizers.Tokenizer`.
        vocab_size: above every id; a few below may mean nothing.
        pad: the id that stands where a text has ended; 0 when it has none.
        special: marks that are no part of a text.
        unknown: the token of what it does not know; None where there is none, or it means something else as well.
        hidden: the id that can stand for a hidden word: that of `unknown`, else of the mask token; None for neither.
    """

    whole: Any
    fast: Any
    vocab_size: int
    pad: int
    special: tuple[str, ...]
    unknown: str | None
    hidden: int | None


def load_tokenizer(name: str | Path, *, max_length: int) -> PretrainedTokenizer:
    """Load a tokenizer.

    Args:
        name: a folder, or a name of the hub.
        max_length: longer texts are cut to so many tokens, marks among them.

    Raises:
        ConfigError: when there is none, it brings code of its own, or it is not one of the `tokenizers` library.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    place = str(Path(name).expanduser()) if str(name).startswith("~") else str(name)
    try:
        whole = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        reason = reason_of(error)
        raise ConfigError(f"tokenizer = {name} cannot be loaded: {reason}\n    {MEND}") from error
    if not whole.is_fast:
        raise ConfigError(
            f"tokenizer = {name} is a {type(whole).__name__}, which runs by SentencePiece or in Python; this project"
            " reads texts by the tokenizers library alone\n"
            "    take weights whose tokenizer is one of that library, such as SigLIP 2 in place of SigLIP 1"
        )
    fast = Tokenizer.from_str(whole.backend_tokenizer.to_str())  # the library changes its own at every call
    special = tuple(whole.all_special_tokens)
    vocabulary = fast.get_vocab()
    if len(vocabulary.keys() - set(special)) < 2:  # without files the library makes one of its marks alone
        raise ConfigError(f"tokenizer = {name} holds no words\n    {MEND}")
    fast.no_padding()
    fast.enable_truncation(max_length)
    others = {whole.bos_token, whole.eos_token, whole.cls_token, whole.sep_token, whole.pad_token}
    unknown = None if whole.unk_token in others else whole.unk_token  # CLIP's also ends the text
    hiding = unknown if unknown is not None else whole.mask_token
    return PretrainedTokenizer(
        whole=whole,
        fast=fast,
        vocab_size=max(len(whole), max(vocabulary.values()) + 1),
        pad=whole.pad_token_id or 0,
        special=special,
        unknown=unknown,
        hidden=None if hiding is None else fast.token_to_id(hiding),
    )
