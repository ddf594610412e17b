"""What one written sentence is worth: a score of `text_generation`, of each alone.

CIDEr-D weighs n-grams by how many rows have them. Here these are the rows of training, always the same, so that a
sentence is worth the same whatever the batch, the rank and the split that it is in.
"""

from collections.abc import Callable, Sequence

from sacrebleu.metrics import BLEU

from mmtrain.metrics.text_generation import CiderD, rouge_l

REWARDS = ("cider", "bleu", "rouge_l", "exact_match")
Reward = Callable[[str, Sequence[str]], float]


def reward_of(name: str, *, sentences: Sequence[Sequence[str]], tokenize: str) -> Reward:
    """Map a sentence and those that are right to a number, higher is better.

    Args:
        name: of `REWARDS`.
        sentences: the right ones of each row of training; only cider asks for them.
        tokenize: how BLEU splits words, one of sacrebleu's.

    Raises:
        ValueError: for another name, and for cider without sentences.
    """
    if name not in REWARDS:
        raise ValueError(f"reward = {name}; set it to {', '.join(REWARDS)}")
    if name == "exact_match":
        return lambda said, right: float(said in right)
    if name == "rouge_l":
        return lambda said, right: max(rouge_l(said, text) for text in right)
    if name == "bleu":
        bleu = BLEU(tokenize=tokenize, effective_order=True)
        return lambda said, right: bleu.sentence_score(said, list(right)).score / 100
    if not sentences:
        raise ValueError("reward = cider weighs words by the sentences of training, which the target did not keep")
    return CiderD(sentences).score
