"""Scores of sentences against sacrebleu's own and plain loops; independent of batches, order and ranks."""

import itertools
import json
import math
import random
import warnings

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor

from mmtrain.metrics.text_generation import TextGeneration, TokenAccuracy, cider_d, rouge_l, words_of
from tests.ranks import on_ranks

WORDS = ("a", "cat", "dog", "sits", "on", "the", "mat", "red", "runs", "fast")
SCORES = {"bleu", "chrf", "rouge_l", "cider", "exact_match"}
Row = tuple[str, list[str]]


def make_rows(seed: int, size: int = 19) -> list[Row]:
    """One to three references per row; some hypotheses are empty, some correct, some repeated."""
    draw = random.Random(seed)

    def sentence(fewest: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(fewest, 8))).capitalize() + draw.choice(".! ")

    common, rows = sentence(3), []
    for number in range(size):
        right = [common if draw.random() < 0.3 else sentence(1) for _ in range(draw.randint(1, 3))]
        words = right[0].split()
        near = " ".join(draw.sample(words, len(words)))
        rows.append(("" if number % 7 == 3 else draw.choice([right[-1], near, near, sentence(1)]), right))
    return rows


def metric_of(rows: list[Row], *, batch: int = 5, first: int = 0) -> TextGeneration:
    metric = TextGeneration(tokenize="13a")
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        numbers = torch.arange(first + start, first + start + len(part))
        metric.update([said for said, _ in part], [right for _, right in part], numbers)
    return metric


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and one
    for name in one:
        assert torch.equal(one[name], other[name]), name


# ------------------------------------------------------------------ reference implementations


def plain_rouge(message: str, right: str) -> float:
    """Every subsequence of words, longest first."""
    mine, theirs = words_of(message), words_of(right)
    for length in range(min(len(mine), len(theirs)), 0, -1):
        if set(itertools.combinations(mine, length)) & set(itertools.combinations(theirs, length)):
            precision, recall = length / len(mine), length / len(theirs)
            return 2 * precision * recall / (precision + recall)
    return 0.0


def plain_cider(rows: list[Row]) -> float:
    """CIDEr-D with full vectors over all n-grams of the corpus."""
    total = 0.0
    for n in range(1, 5):
        ngrams = sorted({g for said, right in rows for text in (said, *right) for g in slices(text, n)})
        if not ngrams:
            continue
        number = [max(sum(any(g in slices(t, n) for t in right) for _, right in rows), 1) for g in ngrams]
        idf = np.log(len(rows) / np.array(number))
        for said, right in rows:
            mine = idf * [slices(said, n).count(g) for g in ngrams]
            for text in right:
                theirs = idf * [slices(text, n).count(g) for g in ngrams]
                norm = np.linalg.norm(mine) * np.linalg.norm(theirs)
                cosine = np.minimum(mine, theirs) @ theirs / norm if norm else 0.0
                off = len(words_of(said)) - len(words_of(text))
                total += 10 * cosine * math.exp(-(off**2) / 72) / 4 / len(right) / len(rows)
    return total


def slices(text: str, n: int) -> list[tuple[str, ...]]:
    words = words_of(text)
    return list(zip(*(words[i:] for i in range(n)), strict=False))


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_sacrebleu_and_of_loops(seed: int) -> None:
    rows = make_rows(seed)
    values = metric_of(rows).compute()
    texts, columns = [said for said, _ in rows], list(itertools.zip_longest(*(right for _, right in rows)))
    expected = {
        "bleu": BLEU().corpus_score(texts, columns).score / 100,
        "chrf": CHRF().corpus_score(texts, columns).score / 100,
        "rouge_l": sum(max(plain_rouge(said, text) for text in right) for said, right in rows) / len(rows),
        "cider": plain_cider(rows),
        "exact_match": sum(said in right for said, right in rows) / len(rows),
    }
    for name, value in expected.items():
        assert values[name].item() == pytest.approx(value, abs=1e-9), name
    assert all(0.0 < values[name] < 1.0 for name in SCORES - {"cider"})


@pytest.mark.parametrize("seed", range(3))
def test_chance_is_always_saying_the_most_frequent_sentence(seed: int) -> None:
    rows = make_rows(seed)
    everything = [text for _, right in rows for text in right]
    guess = max(set(everything), key=everything.count)
    assert everything.count(guess) > 1
    values, always = metric_of(rows).compute(), metric_of([(guess, right) for _, right in rows]).compute()
    for name in SCORES:
        assert values[f"{name}/chance"] == always[name]


def test_what_is_right_word_by_word_has_all() -> None:
    right = ["a red dog runs fast", "the cat sits on the mat", "a man and a woman dance"]
    values = metric_of([(text, [text]) for text in right]).compute()
    assert {name: round(values[name].item(), 6) for name in SCORES} == dict.fromkeys(SCORES, 1.0) | {"cider": 10.0}


@pytest.mark.parametrize(
    "rows",
    [
        [("", ["a cat"]), ("", ["a dog", "dogs"])],
        [("...", ["a cat"]), (" ", ["a dog"])],
        [("mat", ["a cat"])],  # one row: its n-grams have no weight
        [("a cat", ["a cat"])],
        [("yes", ["yes"]), ("no", ["yes"]), ("2", ["3"])],  # fewer than four words
        [("a cat", ["..."])],
        [("same", ["same"])] * 4,
    ],
)
def test_little_to_score_gives_a_number(rows: list[Row]) -> None:
    values = metric_of(rows).compute()
    for name in SCORES:
        for value in (values[name], values[f"{name}/chance"]):
            assert value.isfinite() and 0.0 <= value <= 10.0
    assert values["exact_match"].item() == sum(said in right for said, right in rows) / len(rows)
    if not any(set(words_of(said)) for said, _ in rows):
        assert values["rouge_l"] == values["cider"] == 0.0
    assert values["shown"].ndim == 1


def test_words_of_any_script_count() -> None:
    assert words_of("Été à_la 5e, 猫!") == ["été", "à", "la", "5e", "猫"]
    assert rouge_l("猫 犬", "猫 鳥") == 0.5


def test_an_ngram_counts_no_more_often_than_it_is_right() -> None:
    references = [["a dog"], ["a cat"], ["a bird"]]
    once, often = (cider_d([said, "a", "a"], references) for said in ("dog", "dog dog dog"))
    assert 0.0 < often < once


def test_another_way_to_split_words_is_taken_or_refused() -> None:
    rows = ["猫在红色的垫子上", "狗跑得很快"], [["猫在红色垫子上面"], ["狗跑得非常快"]]
    values = {}
    for tokenize in ("13a", "zh"):
        metric = TextGeneration(tokenize=tokenize)
        metric.update(*rows, torch.arange(2))
        values[tokenize] = metric.compute()["bleu"].item()
    assert values["13a"] < 0.1 < values["zh"]
    with pytest.raises(ValueError, match=r"tokenize = 13b is none of sacrebleu's .* set it to 13a"):
        TextGeneration(tokenize="13b")


# -------------------------------------------------------------- batches, order, ranks


def test_batches_and_the_order_of_rows_change_nothing() -> None:
    rows = make_rows(0)
    values = metric_of(rows).compute()
    assert_same(metric_of(rows, batch=1).compute(), values)
    assert_same(metric_of(rows, batch=100).compute(), values)
    metric = TextGeneration(tokenize="13a")
    for number in torch.randperm(len(rows)).tolist():
        metric.update([rows[number][0]], [rows[number][1]], torch.tensor([number]))
        metric.update([], [], torch.tensor([], dtype=torch.long))
    assert_same(metric.compute(), values)


def test_twelve_rows_are_shown_as_they_are() -> None:
    rows = make_rows(1, size=50)
    lines = bytes(metric_of(rows, first=100).compute()["shown"].tolist()).splitlines()
    shown = [json.loads(line) for line in lines]
    assert [number for number, _, _ in shown] == list(range(100, 148, 4))
    assert all((said, right) == rows[number - 100] for number, said, right in shown)
    few = bytes(metric_of([("Ça\nva ", ["\x00"])]).compute()["shown"].tolist())
    assert json.loads(few) == [0, "Ça\nva ", ["\x00"]]


def test_nothing_written_scores_nothing() -> None:
    metric = TextGeneration(tokenize="13a")
    metric.update([], [], torch.tensor([], dtype=torch.long))
    assert metric.compute() == {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics warns about compute without update
        assert TextGeneration(tokenize="13a").compute() == {}
        assert TokenAccuracy(3).compute() == {}


def test_a_reset_forgets() -> None:
    metric = metric_of(make_rows(0))
    metric.compute()
    metric.reset()
    metric.update(["a cat"], [["a cat"]], torch.tensor([0]))
    assert metric.compute()["exact_match"] == 1.0


def share_of_rank(rank: int, world_size: int) -> dict[str, Tensor]:
    """Every n-th row, and nothing for the last rank."""
    metric, accuracy, rows = TextGeneration(tokenize="13a"), TokenAccuracy(4), make_rows(0)
    said, right = torch.arange(19) % 3, torch.arange(19) % 4
    if rank < world_size - 1:
        for number in range(rank, len(rows), world_size - 1):
            metric.update([rows[number][0]], [rows[number][1]], torch.tensor([number]))
            accuracy.update(said[number : number + 1], right[number : number + 1])
    return metric.compute() | accuracy.compute()


@pytest.mark.parametrize("world_size", [2, 3])
def test_real_ranks_give_the_values_of_one(world_size: int) -> None:
    expected = metric_of(make_rows(0)).compute()
    for values in on_ranks(world_size, share_of_rank, world_size):
        assert values.pop("token_accuracy").item() == pytest.approx(sum(i % 3 == i % 4 for i in range(19)) / 19)
        assert values.pop("token_accuracy/chance").item() == pytest.approx(5 / 19)
        assert_same(values, expected)
