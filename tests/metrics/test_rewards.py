"""Rewards of single sentences, which are corpus scores; and means by name."""

import math

import pytest
import torch

from mmtrain.metrics.means import Means
from mmtrain.metrics.rewards import REWARDS, reward_of
from mmtrain.metrics.text_generation import text_scores

CORPUS = [["a red cat sits", "a cat"], ["the blue dog runs fast"], ["two birds fly over a house"]]
SAID = ["a red cat runs", "the blue dog runs fast", "a house"]


@pytest.mark.parametrize("name", ["cider", "rouge_l", "exact_match"])
def test_the_mean_of_rewards_is_the_score_of_the_corpus(name: str) -> None:
    reward = reward_of(name, sentences=CORPUS, tokenize="13a")
    results = [reward(said, right) for said, right in zip(SAID, CORPUS, strict=True)]
    assert sum(results) / 3 == pytest.approx(text_scores(SAID, CORPUS, tokenize="13a")[name])
    assert results[1] == max(results) and reward("", CORPUS[1]) == 0


def test_bleu_is_of_the_orders_that_a_sentence_has() -> None:
    reward = reward_of("bleu", sentences=[], tokenize="13a")
    assert reward(SAID[1], CORPUS[1]) == pytest.approx(1.0)
    assert reward("a cat", CORPUS[0]) == pytest.approx(1.0)  # has fewer than four words
    assert 0 < reward(SAID[0], CORPUS[0]) < 1


def test_what_is_no_reward_is_refused() -> None:
    with pytest.raises(ValueError, match=f"reward = meteor; set it to {', '.join(REWARDS)}"):
        reward_of("meteor", sentences=CORPUS, tokenize="13a")
    with pytest.raises(ValueError, match="cider weights words by the training sentences"):
        reward_of("cider", sentences=[], tokenize="13a")


def test_means_are_of_what_was_shown() -> None:
    means = Means(["a", "b", "c"])
    means.update({"a": torch.tensor([1.0, 2.0])})
    means.update({"a": torch.tensor([[6.0]]), "b": torch.tensor([3, 4]), "c": torch.zeros(0)})
    assert {name: value.item() for name, value in means.compute().items()} == {"a": 3.0, "b": 3.5}
    means.reset()
    assert means.compute() == {}
    with pytest.raises(FloatingPointError, match="b: a number is not finite"):
        means.update({"b": torch.tensor([math.nan])})
