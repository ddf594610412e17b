"""The reward of one generated sentence: a score of `text_generation` for a single sentence.

CIDEr-D weights n-grams by the number of rows that contain them. Here these are always the training rows, so the reward
of a sentence does not depend on the batch, the rank or the split.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from sacrebleu.metrics import BLEU

from mmtrain.metrics.text_generation import CiderD, rouge_l

RewardName = Literal["cider", "bleu", "rouge_l", "exact_match"]
REWARDS: tuple[RewardName, ...] = get_args(RewardName)
Reward = Callable[[str, Sequence[str]], float]


def reward_of(name: str, *, sentences: Sequence[Sequence[str]], tokenize: str) -> Reward:
    """Return a function from a sentence and its references to a number; higher is better.

    Args:
        name: one of `REWARDS`.
        sentences: the references of each training row; used only by cider.
        tokenize: sacrebleu's tokenizer for BLEU.

    Raises:
        ValueError: for any other name, or for cider without sentences.
    """
    if name not in REWARDS:
        raise ValueError(f"reward = {name}; set it to {', '.join(REWARDS)}")
    if name == "exact_match":
        return lambda sentence, right: float(sentence in right)
    if name == "rouge_l":
        return lambda sentence, right: max(rouge_l(sentence, text) for text in right)
    if name == "bleu":
        bleu = BLEU(tokenize=tokenize, effective_order=True)
        return lambda sentence, right: bleu.sentence_score(sentence, list(right)).score / 100
    if not sentences:
        raise ValueError("reward = cider weights words by the training sentences, which the target did not keep")
    return CiderD(sentences).score
