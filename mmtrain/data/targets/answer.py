"""An answer to choose: one correct answer per row, or several with repeats as in VQAv2 (1612.00837).

Answers are compared as in the VQA evaluation (visualqa.org/evaluation.html), reimplemented from its description. There
are two differences. An answer that has only articles or punctuation ("A", a letter to choose) is kept, and a missing
apostrophe is restored only if the word without it is not another word ("its", "were", "well").
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtrain.annotations import Size
from mmtrain.data.tables.columns import name_of
from mmtrain.data.tables.sample_errors import read_each
from mmtrain.data.tables.scale import in_short
from mmtrain.errors import ConfigError, SampleError
from mmtrain.io.run_files import LEARN_AGAIN, read_json, write_json
from mmtrain.types import AnswerTarget

_ARTICLES = {"a", "an", "the"}
_NUMBERS = "zero one two three four five six seven eight nine ten"
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS.split())} | {"none": "0"}
_WITH_APOSTROPHES = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he's how'd
    how's i'm i've isn't it'd it'll let's ma'am might've mightn't mightn't've must've mustn't needn't o'clock
    oughtn't shan't she's should've shouldn't shouldn't've that's there's they'd they'll they're they've wasn't
    we've weren't what'll what're what's what've when's where'd where's who'd who'll who's who've why's won't
    would've wouldn't wouldn't've y'all you'd you'll you're you've
"""
_CONTRACTIONS = {word.replace("'", ""): word for word in _WITH_APOSTROPHES.split()}
_ENOUGH = 3  # number of other annotators with the same answer that make it correct (1505.00468, section 3)


class Answer:
    """A column of correct answers: a text, or a list of texts (or of VQAv2's {"answer": text}), with repeats.

    The classes are the most frequent normalised answers of the training split, in descending order.

    Args:
        num_answers: maximum number of classes.
    """

    def __init__(self, *, num_answers: Size) -> None:
        if num_answers < 1:
            raise ValueError(f"num_answers = {num_answers} is below 1; set it to 3000, for example")
        self.num_answers = num_answers
        self.fingerprint = f"answer num_answers={num_answers}"
        self.known = AnswerTarget(names=[], counts=[])
        self._index: dict[str, int] = {}

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Learn the answers and their number of annotators in the training split.

        Raises:
            ConfigError: if no cell can be read, and not all are empty.
        """
        counts: Counter[str] = Counter()
        faults: list[SampleError] = []
        for answers in read_each(cells, _answers_of, faults):
            counts.update(answers)
        if faults and not counts:
            raise ConfigError(
                f"no row of the training split has an answer: such as {faults[0]}\n"
                "    fix: name a column of texts or of lists of texts"
            )
        best = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: self.num_answers]
        self._set(AnswerTarget(names=[name for name, _ in best], counts=[count for _, count in best]))

    def _set(self, known: AnswerTarget) -> None:
        self.known = known
        self._index = {name: i for i, name in enumerate(known.names)}

    def save(self, folder: Path, name: str) -> None:
        """Write the answers and their counts into a run folder."""
        write_json(folder / f"answers_{name}.json", asdict(self.known), indent=1)

    def restore(self, folder: Path, name: str) -> None:
        """Read the answers and counts of a run folder."""
        path = folder / f"answers_{name}.json"
        self._set(AnswerTarget(**read_json(path, fix=LEARN_AGAIN, keys=("names", "counts"))))

    def load(self, value: Any) -> Tensor | None:
        """Score of each answer, (C,), float32: its VQA accuracy among several answers, 1 for a single one.

        All zeros mean that the row has an answer, but none of the classes; evaluation counts it as wrong. None is a row
        without an answer, which is not counted.

        Raises:
            SampleError: for a cell that is not text.
        """
        counts = Counter(_answers_of(value))
        if not counts:
            return None
        worth = torch.zeros(len(self.known.names))
        for name, count in counts.items():
            if name in self._index:
                worth[self._index[name]] = vqa_accuracy(count, counts.total())
        return worth

    def pad(self, values: Sequence[Tensor | None]) -> Tensor:
        """(B, C), float32; also zeros for unlabelled rows, which the mask marks."""
        blank = torch.zeros(len(self.known.names))
        return torch.stack([blank if v is None else v for v in values])


def _answers_of(cell: Any) -> list[str]:
    """The normalised answers of a cell with repeats; blank ones are dropped."""
    parts = cell if isinstance(cell, list | tuple) else [cell]
    texts = []
    for part in parts:
        text = part.get("answer") if isinstance(part, dict) else part
        if isinstance(text, dict | list | tuple) or (isinstance(part, dict) and "answer" not in part):
            raise SampleError(in_short(cell), "not a text or a list of texts")
        if (name := name_of(text)) is not None:
            texts.append(normalise(name))
    return texts


def vqa_accuracy(count: int, total: int) -> float:
    """The VQA accuracy of an answer that `count` of `total` annotators gave, as in the official evaluation.

    Each annotator is left out once. Of the others, three with this answer make it correct. The score is the mean.
    In a row with a single answer, there is no other annotator: the answer is correct or wrong.

    >>> [round(vqa_accuracy(count, 10), 4) for count in range(5)], vqa_accuracy(1, 1)
    ([0.0, 0.3, 0.6, 0.9, 1.0], 1.0)
    """
    if total == 1:
        return float(count)
    own, others = min((count - 1) / _ENOUGH, 1.0), min(count / _ENOUGH, 1.0)
    return (count * own + (total - count) * others) / total


def normalise(answer: str) -> str:
    """An answer as the VQA evaluation compares it.

    >>> normalise("The two dogs, dont run 1,000.5 miles.")
    "2 dogs don't run 1000.5 miles"
    """
    lower = answer.lower().replace("\u2019", "'")
    text = re.sub(r"\.(?!\d)|(?<=\d),(?=\d)", "", lower)
    text = "".join(" " if unicodedata.category(c)[0] in "PS" and c not in "':." else c for c in text)
    words = [_DIGITS.get(word, word) for word in text.split() if word not in _ARTICLES]
    return " ".join(_CONTRACTIONS.get(word.replace("'", ""), word) for word in words) or " ".join(lower.split())
