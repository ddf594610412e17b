"""Text: token ids from a tokenizer that is trained on the training split and kept in the run folder."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtrain.data.image import key_of
from mmtrain.data.order import mix
from mmtrain.types import Padded


class TextInput:
    """A caption column: a string, or a list of which training takes one at random an epoch.

    Args:
        vocab_size: at most so many tokens.
        max_length: longer texts are cut to so many tokens.
        lowercase: fold case before tokenizing.
        algorithm: bpe or wordpiece.
    """

    kind = "text"
    file_name = "tokenizer.json"
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

    def __init__(self, *, vocab_size: int, max_length: int, lowercase: bool, algorithm: str) -> None:
        if algorithm not in ("bpe", "wordpiece"):
            raise ValueError(f"algorithm = {algorithm}; set it to bpe or wordpiece")
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.lowercase = lowercase
        self.algorithm = algorithm
        self.tokenizer: Any = None

    def fit(self, texts: Iterable[str]) -> None:
        """Train the tokenizer on the captions of the training split."""
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

        options = {"vocab_size": self.vocab_size, "special_tokens": list(self.special), "show_progress": False}
        trainer: Any
        if self.algorithm == "bpe":
            tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
            trainer = trainers.BpeTrainer(**options)
        else:
            tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
            trainer = trainers.WordPieceTrainer(**options)
        fold = [normalizers.NFKC()] + ([normalizers.Lowercase()] if self.lowercase else [])
        tokenizer.normalizer = normalizers.Sequence(fold)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        tokenizer.enable_truncation(self.max_length)
        self.tokenizer = tokenizer

    def save(self, folder: Path) -> None:
        """Write the tokenizer into a run folder."""
        self.tokenizer.save(str(folder / self.file_name))

    def restore(self, folder: Path) -> None:
        """Take the tokenizer of a run folder."""
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / self.file_name))

    def load(self, value: str | Sequence[str], folder: Path, *, seed: int, train: bool) -> tuple[Tensor, int]:
        """Token ids (L,), int64, and the key of the text that was taken; the first of several in evaluation."""
        texts = texts_of(value)
        text = texts[mix(seed) % len(texts)] if train else texts[0]
        return torch.tensor(self.tokenizer.encode(text).ids, dtype=torch.long), key_of(text)

    def pad(self, values: Sequence[Tensor | None]) -> Padded:
        """Token ids (B, L) padded with 0 to the longest, and the mask (B, L)."""
        length = max((len(v) for v in values if v is not None), default=1)
        ids = torch.zeros(len(values), length, dtype=torch.long)
        mask = torch.zeros(len(values), length, dtype=torch.bool)
        for row, value in enumerate(values):
            if value is not None:
                ids[row, : len(value)] = value
                mask[row, : len(value)] = True
        return Padded(ids, mask)


def texts_of(value: str | Sequence[str] | None) -> list[str]:
    """The captions of a cell: one, several, or none; blank ones do not count."""
    if value is None:
        return []
    texts = [value] if isinstance(value, str) else list(value)
    return [str(t) for t in texts if t is not None and str(t).strip()]
