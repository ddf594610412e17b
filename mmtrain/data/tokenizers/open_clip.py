"""The tokenizers of open_clip, which are Python code, with the methods of a `tokenizers.Tokenizer` that inputs use."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmtrain.errors import ConfigError, reason_of
from mmtrain.io.atomic import atomic_write

PREFIX = "open_clip:"
FILE = "open_clip_tokenizer.json"


class Encoded(NamedTuple):
    """A tokenized text.

    Attributes:
        ids: of its tokens.
        word_ids: None for each token; these tokenizers do not tell the words.
    """

    ids: list[int]
    word_ids: list[int | None]


class OpenCLIPTokenizer:
    """Texts as open_clip gives them to a model: padded to its context, with the padding as a part of the text.

    Args:
        name: of an architecture, or hf-hub:NAME, or local-dir:FOLDER.

    Raises:
        ConfigError: if it cannot be loaded.
    """

    mask_token = None

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            import open_clip

            self.whole: Any = open_clip.get_tokenizer(name)
        except (ImportError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ConfigError(f"tokenizer = {PREFIX}{name} cannot be loaded: {reason_of(error)}") from error
        self.context: int = self.whole.context_length

    def encode(self, text: str) -> Encoded:
        """Return the ids of a text, as many as the context has."""
        ids = self.whole([text])[0].tolist()
        return Encoded(ids, [None] * len(ids))

    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        """Return the ids of texts without truncation and padding, to measure them."""
        inner = getattr(self.whole, "tokenizer", None)
        if inner is not None:
            encoded = [list(inner(self.whole.clean_fn(text)).input_ids) for text in texts]
        else:
            encoded = [[0, *self.whole.encode(text), 0] for text in texts]
        return [Encoded(ids, [None] * len(ids)) for ids in encoded]

    def get_vocab(self) -> dict[str, int]:
        """Return the ids by token."""
        inner = getattr(self.whole, "tokenizer", None)
        return dict(inner.get_vocab() if inner is not None else self.whole.encoder)

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token; None if there is no such token."""
        return self.get_vocab().get(token)

    def num_special_tokens_to_add(self, pair: bool) -> int:
        """Return the number of tokens that mark the beginning and the end of a text."""
        inner = getattr(self.whole, "tokenizer", None)
        return 2 if inner is None else len(inner("").input_ids)

    def save_pretrained(self, folder: Path) -> None:
        """Write the name; the files are those of the package or the folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        with atomic_write(Path(folder) / FILE) as part:
            Path(part).write_text(json.dumps({"name": self.name}), encoding="utf-8")


def open_clip_name(name: str) -> str | None:
    """Return the architecture of a tokenizer's name, or of a folder that `save_pretrained` wrote; None for others."""
    if name.startswith(PREFIX):
        return name.removeprefix(PREFIX)
    file = Path(name) / FILE
    return str(json.loads(file.read_text(encoding="utf-8"))["name"]) if file.is_file() else None
