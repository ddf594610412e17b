"""The terms of `loss`: weight and label smoothing of each task, for the terminal, the card and the page."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

FIXED = "fixed"


def describe_loss(cfg: DictConfig) -> dict[str, Any]:
    """The name of the balance, and by task its `weight` and `label_smoothing`, which is 0 if it has none."""
    tasks = {
        name: {
            "weight": float(task.weight),
            "label_smoothing": float(task.label_smoothing) if "label_smoothing" in task else 0.0,
        }
        for name, task in cfg.task.items()
    }
    return {"balance": str(cfg.balance["_target_"]).split(".")[-2], "tasks": tasks}


def loss_sentences(loss: Mapping[str, Any]) -> list[str]:
    """The same as sentences, one per line; empty if a run of an older version has not recorded it.

    >>> loss_sentences({"balance": "fixed", "tasks": {"label": {"weight": 0.5, "label_smoothing": 0.1}}})
    ['loss = 0.5 * label/loss', 'label/loss has label_smoothing=0.1 in training, validation and test']
    """
    tasks: Mapping[str, Mapping[str, float]] = loss.get("tasks", {})
    if not tasks:
        return []
    total = "loss = " + " + ".join(f"{task['weight']:g} * {name}/loss" for name, task in tasks.items())
    if loss["balance"] != FIXED:
        total += f"; balance={loss['balance']} multiplies each weight in training, but not in validation and test"
    return [
        total,
        *(
            f"{name}/loss has label_smoothing={task['label_smoothing']:g} in training, validation and test"
            for name, task in tasks.items()
            if task["label_smoothing"]
        ),
    ]
