"""Text: token ids from a tokenizer that is trained on the training split or pretrained, stored in the run folder.

Equal texts give an equal tokenizer. The `tokenizers` trainers do not guarantee that: the choice of rare characters, and
the ids of WordPiece tokens, differ between processes.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mmtrain.annotations import Fraction, TextLength, VocabSize
from mmtrain.data.inputs.image import key_of
from mmtrain.data.order import mix
from mmtrain.data.tables.sample_errors import read_each
from mmtrain.data.tables.texts import check_text, texts_of, valid_texts
from mmtrain.data.tokenizers.open_clip import OpenCLIPTokenizer
from mmtrain.data.tokenizers.pretrained import PretrainedTokenizer, load_tokenizer
from mmtrain.errors import ConfigError
from mmtrain.io.atomic import replacing
from mmtrain.io.run_files import LEARN_AGAIN, damaged, read_text
from mmtrain.types import Padded, Vocabulary

Algorithm = Literal["bpe", "wordpiece"]


class TextInput:
    """A caption column: a string, or a list of strings. Training uses a random one of a list in each epoch.

    Args:
        tokenizer: that of pretrained weights, a folder or a name of the hub; "auto" or None to train one.
        vocab_size: maximum number of tokens; after loading a pretrained tokenizer, its number of tokens.
        max_length: maximum number of tokens; longer texts are truncated.
        lowercase: whether to lowercase before tokenization; a pretrained tokenizer has its own rule.
        algorithm: bpe or wordpiece, of a trained tokenizer.
        word_dropout: probability of replacing a word, with all its tokens, by [UNK] in training (1511.06349, 3.1), so
            that unknown words do not dominate the others. A pretrained tokenizer without an unknown token uses its mask
            token.

    Attributes:
        tokenizer: a `tokenizers.Tokenizer`; None before it is trained, loaded or restored.
        special: special tokens, which are not part of a text.
        unknown: the token for unknown text; None if a pretrained tokenizer has none.
    """

    kind = "text"

    def __init__(
        self,
        *,
        tokenizer: str | None,
        vocab_size: VocabSize,
        max_length: TextLength,
        lowercase: bool,
        algorithm: Algorithm,
        word_dropout: Fraction,
    ) -> None:
        self.special: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        if algorithm not in get_args(Algorithm):
            raise ValueError(f"algorithm = {algorithm}; set it to bpe or wordpiece")
        if vocab_size <= len(self.special):
            raise ValueError(
                f"vocab_size = {vocab_size} leaves no room for words next to {' '.join(self.special)}; set it to 1000"
            )
        if max_length < 3:
            raise ValueError(f"max_length = {max_length} leaves no room between [CLS] and [SEP]; set it to 3 or more")
        if not 0.0 <= word_dropout < 1.0:
            raise ValueError(f"word_dropout = {word_dropout} is not a chance below 1; set it to 0.3, say")
        self.pretrained = None if tokenizer == "auto" else tokenizer
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.lowercase = lowercase
        self.algorithm = algorithm
        self.word_dropout = word_dropout
        self.tokenizer: Any = None
        self.unknown: str | None = "[UNK]"
        self._pad = self.special.index("[PAD]")
        self._hidden: int | None = self.special.index("[UNK]")
        self._loaded: PretrainedTokenizer | None = None

    @property
    def fingerprint(self) -> str:
        """Everything except the texts that determines the tokenizer."""
        if self.pretrained is not None:
            return f"tokenizer={self.pretrained} max_length={self.max_length}"
        return f"{self.algorithm} vocab_size={self.vocab_size} max_length={self.max_length} lowercase={self.lowercase}"

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Train the tokenizer on the captions of the training split, or load the pretrained one.

        Raises:
            ConfigError: if it cannot be loaded, or has no token for a masked word.
        """
        if self.pretrained is not None:
            self._take(load_tokenizer(self.pretrained, max_length=self.max_length))
            return
        from tokenizers import processors

        texts = [text for result in read_each(cells, valid_texts) for text in result]
        tokenizer = self._bpe(texts) if self.algorithm == "bpe" else self._wordpiece(texts)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        tokenizer.enable_truncation(self.max_length)
        self.tokenizer = tokenizer

    def _take(self, loaded: PretrainedTokenizer) -> None:
        if self.word_dropout > 0 and loaded.hidden is None:
            raise ConfigError(
                f"word_dropout = {self.word_dropout}, but tokenizer = {self.pretrained} has neither an unknown token of"
                " its own nor a mask token\n    set data.inputs.text.word_dropout to 0"
            )
        self._loaded, self.tokenizer, self.vocab_size = loaded, loaded.fast, loaded.vocab_size
        self.special, self.unknown, self._pad, self._hidden = loaded.special, loaded.unknown, loaded.pad, loaded.hidden

    def _bpe(self, texts: list[str]) -> Any:
        from tokenizers import models, trainers

        tokenizer = self._blank(models.BPE(unk_token="[UNK]"))
        characters = _characters(tokenizer, texts)
        options: dict[str, Any] = {"vocab_size": self.vocab_size, "special_tokens": list(self.special)}
        room = self.vocab_size - len(self.special)
        if len(characters) > room:  # the trainer would include all of them, even beyond vocab_size
            options |= {"initial_alphabet": characters[:room], "limit_alphabet": room}
        tokenizer.train_from_iterator(texts, trainers.BpeTrainer(show_progress=False, **options))
        return tokenizer

    def _wordpiece(self, texts: list[str]) -> Any:
        """Tokens inside a word start with ##. The trainer assigns ids to those that it gets first in a fixed order."""
        from tokenizers import models, trainers

        draft = self._blank(models.WordPiece(unk_token="[UNK]"))
        characters = _characters(draft, texts)[: (self.vocab_size - len(self.special)) // 2]
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.vocab_size,
            special_tokens=[*self.special, *(f"##{c}" for c in characters)],
            initial_alphabet=characters,
            limit_alphabet=len(characters),
            show_progress=False,
        )
        draft.train_from_iterator(texts, trainer)
        tokenizer = self._blank(models.WordPiece(draft.get_vocab(), unk_token="[UNK]"))
        tokenizer.add_special_tokens(list(self.special))
        return tokenizer

    def _blank(self, model: Any) -> Any:
        from tokenizers import Tokenizer, normalizers, pre_tokenizers

        tokenizer = Tokenizer(model)
        fold = [normalizers.NFKC()] + ([normalizers.Lowercase()] if self.lowercase else [])
        tokenizer.normalizer = normalizers.Sequence(fold)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer

    def uncut(self) -> Any:
        """A `tokenizers.Tokenizer` without truncation, to measure texts."""
        from tokenizers import Tokenizer

        if isinstance(self.tokenizer, OpenCLIPTokenizer):
            return self.tokenizer  # its `encode_batch` measures
        tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        tokenizer.no_truncation()
        return tokenizer

    def words(self) -> list[str]:
        """The tokens in the order of their ids; an unused id is shown in brackets."""
        names = {number: token for token, number in self.tokenizer.get_vocab().items()}
        return [names.get(number, f"[{number}]") for number in range(max(names) + 1)]

    def vocabulary(self) -> Vocabulary:
        """The tokens, and which of them are special."""
        ids = {mark: self.tokenizer.token_to_id(mark) for mark in self.special}
        mask = "[MASK]" if self._loaded is None else self._loaded.whole.mask_token
        special = frozenset(number for number in ids.values() if number is not None)
        return Vocabulary(names=self.words(), special=special, mask=self.tokenizer.token_to_id(mask) if mask else None)

    def save(self, folder: Path, name: str) -> None:
        """Write the tokenizer into a new folder."""
        if self._loaded is None:
            with replacing(_file(folder, name)) as part:
                self.tokenizer.save(str(part))
            return
        self._loaded.whole.save_pretrained(_file(folder, name).with_suffix(""))

    def to_transformers(self) -> Any:
        """A tokenizer of transformers with the same ids and the same truncation."""
        from transformers import PreTrainedTokenizerFast

        if self._loaded is not None:
            tokenizer = copy.deepcopy(self._loaded.whole)
            tokenizer.model_max_length = self.max_length
            return tokenizer
        pad, unknown, first, last, hidden = self.special
        return PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer,
            pad_token=pad,
            unk_token=unknown,
            cls_token=first,
            sep_token=last,
            mask_token=hidden,
            model_max_length=self.max_length,
        )

    def restore(self, folder: Path, name: str) -> None:
        """Read the tokenizer of a run folder, without the hub or the folder of the weights."""
        if self.pretrained is not None:
            self._take(load_tokenizer(_file(folder, name).with_suffix(""), max_length=self.max_length))
            return
        from tokenizers import Tokenizer

        path = _file(folder, name)
        text = read_text(path, fix=LEARN_AGAIN)
        try:
            self.tokenizer = Tokenizer.from_str(text)
        except Exception as error:
            raise damaged(path, f"it is no tokenizer ({error})", fix=LEARN_AGAIN) from error

    def load(self, value: str | Sequence[str], folder: Path, *, seed: int, train: bool) -> tuple[Tensor, int]:
        """Token ids (L,), int64, and the key of the used text; the first of several in evaluation.

        Raises:
            SampleError: for a text that is not valid Unicode.
        """
        texts = texts_of(value) or [""]  # an empty cell of a table is missing, but an empty query is a text
        text = texts[mix(seed) % len(texts)] if train else texts[0]
        check_text(text)
        encoding = self.tokenizer.encode(text)
        ids = torch.tensor(encoding.ids, dtype=torch.long)
        if train and self.word_dropout > 0:
            assert self._hidden is not None
            words = torch.tensor([-1 if w is None else w for w in encoding.word_ids], dtype=torch.long)  # -1: special
            count = max([len(ids), *(words + 1).tolist()])  # a pretrained tokenizer has no token for some words
            hidden = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < self.word_dropout
            ids[hidden[words] & (words >= 0)] = self._hidden
        return ids, key_of(text)

    def pad(self, values: Sequence[Tensor | None]) -> Padded:
        """Token ids (B, L), padded to the longest with the padding id, or 0, and the mask (B, L)."""
        length = max((len(v) for v in values if v is not None), default=1)
        ids = torch.full((len(values), length), self._pad, dtype=torch.long)
        mask = torch.zeros(len(values), length, dtype=torch.bool)
        for row, value in enumerate(values):
            if value is not None:
                ids[row, : len(value)] = value
                mask[row, : len(value)] = True
        return Padded(ids, mask)


def _file(folder: Path, name: str) -> Path:
    return folder / ("tokenizer.json" if name == "text" else f"tokenizer_{name}.json")


def _characters(tokenizer: Any, texts: list[str]) -> list[str]:
    """Characters of the normalised texts, the most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text))
    return sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
