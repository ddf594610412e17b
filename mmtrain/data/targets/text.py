"""A sentence to generate, as token ids of its own tokenizer."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtrain.data.inputs.text import TextInput
from mmtrain.data.tables.sample_errors import read_each
from mmtrain.data.tables.texts import texts_of, valid_texts
from mmtrain.io.run_files import LEARN_AGAIN, read_json, write_json
from mmtrain.types import TokenTarget


class TextTarget:
    """A column of sentences. Of a list of several, the first is the one to generate.

    The tokenizer is trained on the sentences of the target, so a run without text inputs has one, too.

    Args:
        text: how sentences are tokenized. Its algorithm must be wordpiece: tokens of bpe do not mark the end of a word,
            so generated text could not be decoded. Its word dropout is not used.
        keep_references: whether training samples have all references, and the run folder those of all rows, with which
            a reward compares.
    """

    def __init__(self, *, text: TextInput, keep_references: bool) -> None:
        if text.pretrained is not None:
            raise ValueError(
                f"text.tokenizer = {text.pretrained}, but the tokenizer of a target is trained; set it to null"
            )
        if text.algorithm != "wordpiece":
            raise ValueError(
                f"text.algorithm = {text.algorithm} does not mark ends of words, so generated text cannot be decoded\n"
                "    fix: set it to wordpiece"
            )
        self.text = text
        self.keep_references = keep_references
        self.fingerprint = f"{'kept ' if keep_references else ''}sentence {text.fingerprint}"
        self.known = TokenTarget(names=[], max_length=text.max_length, pad=0, start=0, end=0)

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Train the tokenizer on the sentences of the training split; nothing if there are none."""
        filled = [cell for cell in read_each(cells, _filled) if cell is not None]
        if not filled:
            return
        self.text.fit([text for cell in filled for text in texts_of(cell)], folder)
        self._learned([self._spelled(cell) for cell in filled] if self.keep_references else [])

    def _learned(self, sentences: list[list[str]]) -> None:
        tokenizer = self.text.tokenizer
        self.known = TokenTarget(
            names=[tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())],
            max_length=self.text.max_length,
            pad=tokenizer.token_to_id("[PAD]"),
            start=tokenizer.token_to_id("[CLS]"),
            end=tokenizer.token_to_id("[SEP]"),
            sentences=sentences,
        )

    def save(self, folder: Path, name: str) -> None:
        """Write the tokenizer, and the references if they are kept, into a run folder."""
        self.text.save(folder, f"target_{name}")
        if self.keep_references:
            write_json(_file(folder, name), self.known.sentences)

    def restore(self, folder: Path, name: str) -> None:
        """Read them from a run folder."""
        self.text.restore(folder, f"target_{name}")
        self._learned(read_json(_file(folder, name), fix=LEARN_AGAIN) if self.keep_references else [])

    def load(self, value: Any) -> Tensor | None:
        """Token ids (L,), int64, from [CLS] to [SEP]; None for an empty cell."""
        if not _is_there(value):
            return None
        ids, _ = self.text.load(texts_of(value)[:1], Path(), seed=0, train=False)
        return ids

    def pad(self, values: Sequence[Tensor | None]) -> Tensor:
        """(B, L), int64, padded with [PAD] = 0 to the longest; zeros for unlabelled rows."""
        return self.text.pad(values).values

    def references(self, value: Any) -> list[str]:
        """All sentences of a cell, as if none of their tokens were unknown or truncated."""
        return self._spelled(value)

    def _spelled(self, value: Any) -> list[str]:
        from tokenizers import decoders

        tokenizer = self.text.tokenizer
        spell = decoders.WordPiece(cleanup=True)
        folded = [tokenizer.normalizer.normalize_str(text) for text in texts_of(value)]
        return [spell.decode([word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]) for text in folded]

    def words(self, ids: Sequence[int]) -> str:
        """Decode ids: up to [SEP], without special tokens, with the tokens of a word joined."""
        from tokenizers import decoders

        ids = list(ids)
        if self.known.end in ids:
            ids = ids[: ids.index(self.known.end)]
        marks = (self.known.pad, self.known.start)
        return decoders.WordPiece(cleanup=True).decode([self.known.names[i] for i in ids if i not in marks])


def _file(folder: Path, name: str) -> Path:
    return folder / f"target_{name}_sentences.json"


def _filled(cell: Any) -> Any:
    return cell if _is_there(cell) else None


def _is_there(cell: Any) -> bool:
    return cell == cell and bool(valid_texts(cell))  # NaN is a gap, too
