"""Which metrics are better when they are larger and which when they are smaller, by their names."""

_LARGER = (
    *("accuracy", "f1", "auroc", "average_precision", "precision", "recall", "r2", "pearson", "spearman", "agreement"),
    *("bleu", "chrf", "rouge_l", "cider", "exact_match", "ndcg", "R", "mAP", "reward", "reward_margin"),
)
_SMALLER = ("loss", "mae", "mse", "rmse", "median_rank", "calibration_error", "perplexity")


def best_mode(metric: str) -> str | None:
    """Return "max" if a larger value is better, "min" if a smaller one is, None if the name does not show it.

    Args:
        metric: its name, alone or with a prefix such as "val/classification/".

    >>> best_mode("val/regression/mae"), best_mode("val/regression/neg_rmse"), best_mode("test/pairs/image_to_text_R@5")
    ('min', 'max', 'max')
    """
    name = metric.rpartition("/")[2].partition("@")[0]
    if name.startswith("neg_"):
        return "max"
    for mode, words in (("min", _SMALLER), ("max", _LARGER)):
        if any(name == word or name.endswith(f"_{word}") for word in words):
            return mode
    return None
