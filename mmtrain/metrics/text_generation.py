"""Scores of generated sentences: BLEU and chrF of sacrebleu, ROUGE-L, CIDEr-D, exact match; and token accuracy.

The sentences are collected, not n-gram counts, because CIDEr weights n-grams by all references of a split (1411.5726).
Then sacrebleu's public functions score them; every rank repeats this. Scores are from 0 to 1, where papers often write
100. CIDEr is from 0 to 10, as in its paper.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

Tokenize = Literal[  # tokenizers of sacrebleu
    "none", "zh", "13a", "intl", "char", "ja-mecab", "ko-mecab", "spm", "flores101", "flores200", "spBLEU-1K"
]
_SIGMA = 6.0  # of CIDEr-D: tolerance for length differences
_ORDERS = 4  # of CIDEr: n-grams of 1 to 4 words
Grams = list[dict[tuple[str, ...], float]]


class TokenAccuracy(Metric):
    """The fraction of correct tokens, and that of the most frequent token as chance level.

    Args:
        num_tokens: size of the vocabulary.
    """

    full_state_update = False
    right: Tensor
    wanted: Tensor

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.add_state("right", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("wanted", default=torch.zeros(num_tokens, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add predicted tokens (N,) and target tokens (N,), int64."""
        self.right = self.right + (predicted == target).sum()
        self.wanted = self.wanted + torch.bincount(target, minlength=len(self.wanted))

    def compute(self) -> dict[str, Tensor]:
        """Return `token_accuracy` and its `/chance`; empty without tokens."""
        total = self.wanted.sum()
        if total == 0:
            return {}
        return {"token_accuracy": self.right / total, "token_accuracy/chance": self.wanted.max() / total}


class TextGeneration(Metric):
    """Collects generated sentences and their references.

    Args:
        tokenize: sacrebleu's tokenizer for BLEU.
        num_shown: number of example rows for the report.
        prefix: prefix of the names of all values.

    Raises:
        ValueError: for a tokenizer that sacrebleu does not have.
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
        """Add sentences, each with one or more references, and their row ids (N,), int64."""
        parts = zip(rows.tolist(), hypotheses, map(list, references), strict=True)
        lines = "".join(json.dumps(part) + "\n" for part in parts)
        # floats, like torchmetrics' placeholder on a rank without batches
        self.lines.append(torch.tensor(list(lines.encode()), dtype=torch.float, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """Return scalars `bleu`, `chrf`, `rouge_l`, `cider`, `exact_match`, each with `/chance`, and `shown`.

        The chance level is the score of always predicting the most frequent reference. `shown` is for the report:
        uint8, lines of JSON with row id, generated sentence and references. The result is empty without sentences.
        """
        if isinstance(self.lines, list) and not self.lines:  # after a gather from several ranks, it is a tensor
            return {}
        lines = bytes(dim_zero_cat(self.lines).byte().tolist()).splitlines()
        rows = sorted((json.loads(line) for line in lines), key=lambda row: row[0])
        if not rows:
            return {}
        hypotheses, references = [hypothesis for _, hypothesis, _ in rows], [right for _, _, right in rows]
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
    """Compute all scores of a corpus. BLEU is 0 for a corpus of answers shorter than four words."""
    longest = max(map(len, references))
    # sacrebleu expects columns: all first references, all second ones, ...; None where a row has fewer
    columns: Any = [[right[i] if i < len(right) else None for right in references] for i in range(longest)]
    count = len(hypotheses)
    rouge = [
        max(rouge_l(hypothesis, text) for text in right)
        for hypothesis, right in zip(hypotheses, references, strict=True)
    ]
    exact = [hypothesis in right for hypothesis, right in zip(hypotheses, references, strict=True)]
    return {
        "bleu": BLEU(tokenize=tokenize, force=True).corpus_score(hypotheses, columns).score / 100,
        "chrf": CHRF().corpus_score(hypotheses, columns).score / 100,
        "rouge_l": sum(rouge) / count,
        "cider": cider_d(hypotheses, references),
        "exact_match": sum(exact) / count,
    }


def words_of(text: str) -> list[str]:
    """Return runs of letters and digits in lower case, of any script; rouge_score supports only ASCII."""
    return re.findall(r"[^\W_]+", text.lower())


def rouge_l(hypothesis: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words (Lin 2004, section 3.1, for one sentence)."""
    words, right = words_of(hypothesis), words_of(reference)
    lengths = [0] * (len(right) + 1)  # length of the longest subsequence up to each word of `right`
    for word in words:
        before = lengths
        lengths = [0]
        for i, other in enumerate(right):
            lengths.append(before[i] + 1 if word == other else max(before[i + 1], lengths[i]))
    return 2 * lengths[-1] / (len(words) + len(right)) if lengths[-1] else 0.0


def cider_d(hypotheses: list[str], references: list[list[str]]) -> float:
    """Return CIDEr-D (1411.5726, equations 1 to 4 and section 6), the mean over the rows.

    An n-gram that every row contains has weight 0, so a corpus of one row scores 0.
    """
    cider = CiderD(references)
    return sum(map(cider.score, hypotheses, references)) / len(hypotheses)


class CiderD:
    """CIDEr-D of single sentences.

    Args:
        corpus: the references of each row, which determine the weights of n-grams.
    """

    def __init__(self, corpus: Sequence[Sequence[str]]) -> None:
        documents = Counter(gram for right in corpus for gram in {g for text in right for g in _grams(text)})
        self._weights = {gram: math.log(len(corpus) / number) for gram, number in documents.items()}
        self._of_new = math.log(len(corpus))

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """Return a score from 0 to 10."""
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
    """Return the mean over n of cosines, with n-gram counts clipped at those of the reference."""
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
