"""Zero-shot classification: the class of an image is the one with the nearest sentences.

As in CLIP (2103.00020, section 3.1.4): each class name is inserted into several templates, the unit vectors of these
sentences are averaged, and the mean is normalized to unit length.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.errors import ConfigError
from mmtrain.metrics.calibration import CalibrationError
from mmtrain.modes.search.towers import Towers

Figures = dict[str, dict[str, float | None]]


def class_vectors(towers: Towers, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return (C, D), float32, unit length: one vector per class.

    Args:
        towers: one of them reads text.
        names: of the classes, as words.
        templates: sentences with {} in place of the name.

    Raises:
        ConfigError: if there is no template, or one without exactly one {}.
    """
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        message = f"{wrong[0]!r} does not have exactly one {{}}" if wrong else "none is set"
        raise ConfigError(f"templates: {message}\n    fix: write one {{}} in each, such as 'a picture of {{}}'")
    sentences = [template.format(name) for name in names for template in templates]
    vectors = towers.encode(towers.of_kind("text"), sentences).view(len(names), len(templates), -1)
    return F.normalize(vectors.mean(dim=1), dim=-1)


def probabilities(vectors: Tensor, classes: Tensor, *, scale: float) -> Tensor:
    """Return (N, C), float64, for vectors (N, D) and class vectors (C, D), at the learned temperature."""
    return (scale * vectors.double() @ classes.double().T).softmax(dim=1)


def _top_five(probability: Tensor, truth: Tensor, counts: Tensor) -> Figures:
    """Whether the class is among the five most probable ones, for more than five classes."""
    if probability.shape[1] <= 5:
        return {}
    hit = (probability.topk(5, dim=1).indices == truth.unsqueeze(1)).any(dim=1).double().mean()
    return {"top5_accuracy": {"value": float(hit), "chance": float(counts.topk(5).values.sum() / counts.sum())}}


def figures(probability: Tensor, truth: Tensor, *, num_classes: int) -> Figures:
    """Return accuracy, that of the best five, the mean over classes, and calibration, each with the score of guessing.

    Args:
        probability: (N, C).
        truth: (N,), int64.
        num_classes: C.
    """
    right = (probability.argmax(dim=1) == truth).double()
    counts = torch.bincount(truth, minlength=num_classes).double()
    by_class = torch.zeros(num_classes, dtype=torch.double).index_add(0, truth, right)[counts > 0] / counts[counts > 0]
    calibration = CalibrationError()
    calibration.update(probability, truth)
    return {
        "accuracy": {"value": float(right.mean()), "chance": float(counts.max() / counts.sum())},
        **_top_five(probability, truth, counts),
        "class_accuracy": {"value": float(by_class.mean()), "chance": 1 / num_classes},
        "calibration_error": {"value": float(calibration.compute()), "chance": None},
    }
