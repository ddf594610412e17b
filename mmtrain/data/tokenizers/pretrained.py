"""The tokenizer of pretrained weights: from a folder or the hub, with transformers, which is imported on demand."""

from pathlib import Path
from typing import Any, NamedTuple

from mmtrain.data.tokenizers.open_clip import OpenCLIPTokenizer, open_clip_name
from mmtrain.errors import ConfigError, reason_of

FIX = "set data.inputs.text.tokenizer to a folder with tokenizer.json, to a name of the hub, or to auto"


class PretrainedTokenizer(NamedTuple):
    """A pretrained tokenizer.

    Attributes:
        whole: the complete tokenizer of transformers, which can be saved.
        fast: its part that encodes a text with truncation: a `tokenizers.Tokenizer`.
        vocab_size: larger than every id; some smaller ids may be unused.
        pad: id of the padding token; 0 if there is none.
        special: special tokens, which are not part of a text.
        unknown: the token for unknown text; None if there is none, or it has another meaning, too.
        hidden: id for a masked word: that of `unknown`, otherwise of the mask token; None without both.
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
        max_length: maximum number of tokens, including special tokens; longer texts are truncated.

    Raises:
        ConfigError: if there is none, it has its own code, or it is not one of the `tokenizers` library.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    if (architecture := open_clip_name(str(name))) is not None:
        return _of_open_clip(OpenCLIPTokenizer(architecture))
    place = str(Path(name).expanduser()) if str(name).startswith("~") else str(name)
    try:
        loaded = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        reason = reason_of(error)
        raise ConfigError(f"tokenizer = {name} cannot be loaded: {reason}\n    fix: {FIX}") from error
    if not loaded.is_fast:
        raise ConfigError(
            f"tokenizer = {name} is a {type(loaded).__name__}, which uses SentencePiece or Python; this project"
            " needs one of the tokenizers library\n"
            "    fix: use weights with such a tokenizer, for example SigLIP 2 instead of SigLIP 1"
        )
    fast = Tokenizer.from_str(loaded.backend_tokenizer.to_str())  # transformers changes its own at every call
    special = tuple(loaded.all_special_tokens)
    vocabulary = fast.get_vocab()
    if len(vocabulary.keys() - set(special)) < 2:  # without files, transformers creates one with only special tokens
        raise ConfigError(f"tokenizer = {name} has no words\n    fix: {FIX}")
    fast.no_padding()
    fast.enable_truncation(max_length)
    others = {loaded.bos_token, loaded.eos_token, loaded.cls_token, loaded.sep_token, loaded.pad_token}
    unknown = None if loaded.unk_token in others else loaded.unk_token  # in CLIP it is also the end token
    hiding = unknown if unknown is not None else loaded.mask_token
    return PretrainedTokenizer(
        whole=loaded,
        fast=fast,
        vocab_size=max(len(loaded), max(vocabulary.values()) + 1),
        pad=loaded.pad_token_id or 0,
        special=special,
        unknown=unknown,
        hidden=None if hiding is None else fast.token_to_id(hiding),
    )


def _of_open_clip(tokenizer: OpenCLIPTokenizer) -> PretrainedTokenizer:
    """A tokenizer of open_clip. Its padding is a part of the text, and no word can be hidden."""
    return PretrainedTokenizer(
        whole=tokenizer,
        fast=tokenizer,
        vocab_size=max(tokenizer.get_vocab().values()) + 1,
        pad=0,
        special=(),
        unknown=None,
        hidden=None,
    )
