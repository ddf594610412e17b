"""What written sentences are worth: BLEU and chrF by sacrebleu, ROUGE-L, CIDEr-D, exact match; and of single tokens.

Sentences themselves are collected, not n-gram counts: CIDEr weighs n-grams by all references of a split (1411.5726),
so they have to come together anyway, and then sacrebleu's public functions score them, at the price of scoring on
every rank. All are from 0 to 1, where papers often write 100; CIDEr from 0 to 10, as its paper has it.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

_SIGMA = 6.0  # of CIDEr-D: how far a length may be off
_ORDERS = 4  # of CIDEr: n-grams of 1 to 4 words
Grams = list[dict[tuple[str, ...], float]]


class TokenAccuracy(Metric):
    """The share of right tokens, and that of the most frequent one.

    Args:
        num_tokens: of the vocabulary.
    """

    full_state_update = False
    right: Tensor
    wanted: Tensor

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.add_state("right", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("wanted", default=torch.zeros(num_tokens, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, said: Tensor, wanted: Tensor) -> None:
        """Add tokens (N,) and the true ones (N,), int64."""
        self.right = self.right + (said == wanted).sum()
        self.wanted = self.wanted + torch.bincount(wanted, minlength=len(self.wanted))

    def compute(self) -> dict[str, Tensor]:
        """`token_accuracy` and its `/chance`; empty without a token."""
        total = self.wanted.sum()
        if total == 0:
            return {}
        return {"token_accuracy": self.right / total, "token_accuracy/chance": self.wanted.max() / total}


class TextGeneration(Metric):
    """Collects what was written and what is right.

    Args:
        tokenize: how BLEU splits words, one of sacrebleu's.
        num_shown: rows for a report.
        prefix: of the names of all values.

    Raises:
        ValueError: for a way to split that sacrebleu does not know.
    """

    full_state_update = False
    lines: list[Tensor]

    def __init__(self, *, tokenize: str, num_shown: int = 12, prefix: str = "") -> None:
        super().__init__()
        if tokenize not in BLEU.TOKENIZERS:
            raise ValueError(
                f"tokenize = {tokenize} is none of sacrebleu's {', '.join(BLEU.TOKENIZERS)}; set it to 13a"
            )
        self.tokenize = tokenize
        self.num_shown = num_shown
        self.prefix = prefix
        self.add_state("lines", default=[], dist_reduce_fx="cat")

    def update(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]], rows: Tensor) -> None:
        """Add sentences, each with one or more that are right, and the numbers of their rows (N,), int64."""
        parts = zip(rows.tolist(), hypotheses, map(list, references), strict=True)
        lines = "".join(json.dumps(part) + "\n" for part in parts)
        # floats: what torchmetrics puts in for a rank that was never shown anything
        self.lines.append(torch.tensor(list(lines.encode()), dtype=torch.float, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """Scalars `bleu`, `chrf`, `rouge_l`, `cider`, `exact_match`, their `/chance`, and `shown` for a report.

        Chance is always the most frequent of the right sentences. `shown` is uint8, lines of JSON: row, what was
        written, what is right. Empty when nothing was written.
        """
        if isinstance(self.lines, list) and not self.lines:  # gathered from several ranks, it is a tensor
            return {}
        lines = bytes(dim_zero_cat(self.lines).byte().tolist()).splitlines()
        rows = sorted((json.loads(line) for line in lines), key=lambda row: row[0])
        if not rows:
            return {}
        hypotheses, references = [said for _, said, _ in rows], [right for _, _, right in rows]
        counts = Counter(text for right in references for text in right)
        guess = min(counts, key=lambda text: (-counts[text], text))
        scores = text_scores(hypotheses, references, tokenize=self.tokenize)
        chance = text_scores([guess] * len(rows), references, tokenize=self.tokenize)
        values = scores | {f"{name}/chance": value for name, value in chance.items()}
        shown = rows[:: max(len(rows) // self.num_shown, 1)][: self.num_shown]
        text = "".join(json.dumps(row) + "\n" for row in shown)
        computed = {name: torch.tensor(value, dtype=torch.double) for name, value in values.items()}
        computed["shown"] = torch.tensor(list(text.encode()), dtype=torch.uint8)
        return {self.prefix + name: value for name, value in computed.items()}


def text_scores(hypotheses: list[str], references: list[list[str]], *, tokenize: str) -> dict[str, float]:
    """All scores of a corpus. One word has no four words in a row: BLEU of short answers alone is 0."""
    longest = max(map(len, references))
    # sacrebleu wants the first ones together, the second ones, ...; None where a row has no more
    columns: Any = [[right[i] if i < len(right) else None for right in references] for i in range(longest)]
    count = len(hypotheses)
    rouge = [max(rouge_l(said, text) for text in right) for said, right in zip(hypotheses, references, strict=True)]
    exact = [said in right for said, right in zip(hypotheses, references, strict=True)]
    return {
        "bleu": BLEU(tokenize=tokenize, force=True).corpus_score(hypotheses, columns).score / 100,
        "chrf": CHRF().corpus_score(hypotheses, columns).score / 100,
        "rouge_l": sum(rouge) / count,
        "cider": cider_d(hypotheses, references),
        "exact_match": sum(exact) / count,
    }


def words_of(text: str) -> list[str]:
    """Runs of letters and digits in lower case; rouge_score takes only those of ASCII for letters."""
    return re.findall(r"[^\W_]+", text.lower())


def rouge_l(hypothesis: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, section 3.1, for one sentence)."""
    said, right = words_of(hypothesis), words_of(reference)
    lengths = [0] * (len(right) + 1)  # of the longest one up to each word of `right`
    for word in said:
        before = lengths
        lengths = [0]
        for i, other in enumerate(right):
            lengths.append(before[i] + 1 if word == other else max(before[i + 1], lengths[i]))
    return 2 * lengths[-1] / (len(said) + len(right)) if lengths[-1] else 0.0


def cider_d(hypotheses: list[str], references: list[list[str]]) -> float:
    """CIDEr-D (1411.5726, equations 1 to 4 and section 6), the mean over the rows.

    An n-gram that every row has weighs nothing; so a corpus of one row scores 0.
    """
    cider = CiderD(references)
    return sum(map(cider.score, hypotheses, references)) / len(hypotheses)


class CiderD:
    """CIDEr-D of one sentence at a time.

    Args:
        corpus: the right sentences of each row, by which n-grams are weighed.
    """

    def __init__(self, corpus: Sequence[Sequence[str]]) -> None:
        documents = Counter(gram for right in corpus for gram in {g for text in right for g in _grams(text)})
        self._weights = {gram: math.log(len(corpus) / number) for gram, number in documents.items()}
        self._of_new = math.log(len(corpus))

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """From 0 to 10."""
        counts = _grams(hypothesis)
        mine, length = self._weighed(counts), _length(counts)
        total = 0.0
        for other in map(_grams, references):
            near = math.exp(-((length - _length(other)) ** 2) / (2 * _SIGMA**2))
            total += 10 * near * _similarity(mine, self._weighed(other)) / len(references)
        return total

    def _weighed(self, counts: Counter[tuple[str, ...]]) -> Grams:
        parts: Grams = [{} for _ in range(_ORDERS)]
        for gram, number in counts.items():
            parts[len(gram) - 1][gram] = number * self._weights.get(gram, self._of_new)
        return parts


def _similarity(mine: Grams, other: Grams) -> float:
    """The mean over n of cosines, in which no n-gram counts more often than the reference has it."""
    total = 0.0
    for left, right in zip(mine, other, strict=True):
        norm = math.hypot(*left.values()) * math.hypot(*right.values())
        if norm > 0:
            total += sum(min(value, right[g]) * right[g] for g, value in left.items() if g in right) / norm
    return total / _ORDERS


def _grams(text: str) -> Counter[tuple[str, ...]]:
    words = words_of(text)
    return Counter(tuple(words[i : i + n]) for n in range(1, _ORDERS + 1) for i in range(len(words) - n + 1))


def _length(grams: Counter[tuple[str, ...]]) -> int:
    return sum(number for gram, number in grams.items() if len(gram) == 1)
