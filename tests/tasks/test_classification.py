"""Classification: metrics against scikit-learn, which rows count, errors."""

from typing import Any

import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    roc_auc_score,
    top_k_accuracy_score,
)
from torch import Tensor
from torch.nn import functional as F

from mmtrain.config.instantiate import construct
from mmtrain.tasks.classification import Classification, Mixed
from mmtrain.types import ClassTarget, Confusion
from tests.batches import CLASSES, DIM, make_batch, make_model

SIZE = 40


def make_task(
    reads: str = "fused", label_smoothing: float = 0.0, known: ClassTarget | None = None, **options: Any
) -> Classification:
    return construct(
        Classification,
        dims={"fused": DIM, "image": DIM},
        known_targets={"label": known or ClassTarget(names=CLASSES, counts=[1, 1, 1])},
        target="label",
        input=reads,
        weight=1.0,
        dropout=0.0,
        label_smoothing=label_smoothing,
        **({"loss": "cross_entropy", "focal_gamma": 2.0, "class_weights": None, "mixup": 0.0, "cutmix": 0.0} | options),
    )


def labels(num_classes: int = 3, unlabelled: float = 0.3) -> list[int]:
    drawn = torch.randint(0, num_classes, (SIZE,))
    return drawn.masked_fill(torch.rand(SIZE) < unlabelled, -1).tolist()


def scored(truth: list[int], logits: Tensor, batch: int = 7) -> tuple[Classification, dict[str, Tensor]]:
    """Return metrics over batches of rows that all have a modality to read."""
    task = make_task()
    metrics = task.metrics()
    for start in range(0, SIZE, batch):
        part = truth[start : start + batch]
        task.update(metrics, logits[start : start + batch], make_batch([1] * len(part), [1] * len(part), part))
    return task, metrics.compute()


@pytest.mark.parametrize("num_classes", [2, 3])
def test_metrics_are_those_of_scikit_learn(num_classes: int) -> None:
    truth, logits = labels(num_classes), torch.randn(SIZE, 3)
    if num_classes == 2:
        logits[:, 2] = -9.0  # a class that neither occurs nor is predicted is in no mean
    _, values = scored(truth, logits)
    known = [i for i in range(SIZE) if truth[i] >= 0]
    right, said = [truth[i] for i in known], logits.argmax(dim=1)[known].tolist()
    assert values["accuracy"].item() == pytest.approx(accuracy_score(right, said))
    assert values["macro_f1"].item() == pytest.approx(f1_score(right, said, average="macro"))
    assert values["confusion"].tolist() == confusion_matrix(right, said, labels=[0, 1, 2]).tolist()


def test_logits_of_unlabelled_rows_change_no_bit() -> None:
    truth, logits = labels(), torch.randn(SIZE, 3)
    unknown = torch.tensor(truth) < 0
    _, clean = scored(truth, logits)
    _, dirty = scored(truth, logits.masked_fill(unknown.unsqueeze(1), torch.nan))
    assert all(torch.equal(clean[name], dirty[name]) for name in clean)


@pytest.mark.parametrize("num_classes", [1, 2, 3])
def test_chance_is_always_saying_the_most_frequent_class(num_classes: int) -> None:
    truth = labels(num_classes)
    known = [label for label in truth if label >= 0]
    most = max(set(known), key=known.count)
    task, values = scored(truth, torch.randn(SIZE, 3))
    always = [most] * len(known)
    chance = task.chance(values)
    assert chance["accuracy"] == pytest.approx(accuracy_score(known, always))
    assert chance["macro_f1"] == pytest.approx(f1_score(known, always, average="macro", zero_division=0))


def test_the_confusion_matrix_is_shown_with_its_names() -> None:
    task, values = scored(labels(), torch.randn(SIZE, 3))
    assert task.report_items(values, str) == [Confusion("label", CLASSES, values["confusion"].tolist())]


def test_a_batch_without_a_label_is_no_news_to_the_metrics() -> None:
    task = make_task()
    metrics = task.metrics()
    task.update(metrics, torch.randn(2, 3), make_batch([1, 2], [1, 2], [0, 1]))
    before = metrics.compute()
    task.update(metrics, torch.randn(2, 3), make_batch([1, 2], [1, 2], [-1, -1]))
    assert all(torch.equal(before[name], value) for name, value in metrics.compute().items())


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_the_loss_is_that_of_torch_over_labelled_rows_with_something_to_read(label_smoothing: float) -> None:
    #                   both  image  text  nothing  no label
    batch = make_batch([1, 2, 0, 0, 3], [1, 0, 2, 0, 3], [0, 1, 2, 0, -1])
    logits = torch.randn(5, 3)
    targets = batch.targets["label"]
    for reads, rows in (("fused", [0, 1, 2]), ("image", [0, 1])):
        total, count = make_task(reads, label_smoothing).loss(logits, batch)
        assert count == len(rows)
        expected = F.cross_entropy(logits[rows], targets[rows], reduction="sum", label_smoothing=label_smoothing)
        torch.testing.assert_close(total, expected)


def test_what_it_says_of_a_row_is_the_likeliest_class() -> None:
    batch = make_batch([1, 0, 2], [0, 0, 3])
    probabilities = torch.tensor([[0.1, 0.7, 0.2], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])
    rows = make_task().rows(probabilities.log(), batch)
    assert rows[0] == {"label": "b", "probability": pytest.approx(0.7)}
    assert rows[1] == {}  # no modality to read
    assert rows[2] == {"label": "a", "probability": pytest.approx(0.5)}


def test_a_head_that_reads_one_modality_needs_no_fusion() -> None:
    model = make_model(tasks=("image_class",), fusion=None)
    batch = make_batch([1, 2], [1, 2], [0, 1])
    same_picture = make_batch([1, 2], [3, 0], [0, 1])
    assert torch.equal(model(batch)["image_class"], model(same_picture)["image_class"])


def test_what_the_data_does_not_have_is_refused_by_name() -> None:
    parts: dict[str, Any] = {"weight": 1.0, "dropout": 0.0, "label_smoothing": 0.0}
    parts |= {"loss": "cross_entropy", "focal_gamma": 2.0, "class_weights": None, "mixup": 0.0, "cutmix": 0.0}
    known = {"label": ClassTarget(names=CLASSES, counts=[1, 1, 1])}
    with pytest.raises(ValueError, match=r"target = lable, .* label"):
        construct(Classification, dims={"fused": DIM}, known_targets=known, target="lable", input="fused", **parts)
    with pytest.raises(ValueError, match=r"input = audio, .* fused, image"):
        construct(
            Classification,
            dims={"fused": DIM, "image": DIM},
            known_targets=known,
            target="label",
            input="audio",
            **parts,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss = hinge, but there is cross_entropy, focal"),
        ({"focal_gamma": -1.0}, "focal_gamma = -1.0 is below 0"),
        ({"class_weights": "even"}, "class_weights = even; set it to null, balanced or a list of 3 numbers"),
        ({"class_weights": [1.0, 2.0]}, "class_weights has 2 numbers, but there are 3 classes; give one .* a, b, c"),
        ({"class_weights": [1.0, -2.0, 1.0]}, r"class_weights = \[1.0, -2.0, 1.0\]; set them to numbers from 0"),
        ({"class_weights": [0.0, 0.0, 0.0]}, "not all 0"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**options)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_weights_are_of_classes_and_the_count_is_of_rows(loss: str, label_smoothing: float) -> None:
    batch, logits = make_batch([1, 2, 3, 0], [1, 0, 3, 0], [0, 1, -1, 0]), torch.randn(4, 3)
    total, count = make_task("fused", label_smoothing, loss=loss, class_weights=[3.0, 0.5, 1.0]).loss(logits, batch)
    log_p = logits.log_softmax(dim=1)
    damped = (1 - log_p.exp()) ** 2 * log_p if loss == "focal" else log_p
    shares = torch.eye(3)[[0, 1]] * (1 - label_smoothing) + label_smoothing / 3
    expected = -(shares * damped[:2] * torch.tensor([3.0, 0.5, 1.0])).sum()
    torch.testing.assert_close(total, expected)
    assert count == 2


def test_balanced_weights_make_classes_equal_and_leave_the_scale() -> None:
    known = ClassTarget(names=CLASSES, counts=[6, 3, 1])
    weights = make_task(known=known, class_weights="balanced").class_weights
    assert weights is not None
    share = weights * torch.tensor(known.counts)
    torch.testing.assert_close(share, torch.full((3,), 10 / 3))
    assert "class_weights" not in make_task(class_weights="balanced").state_dict()


MANY = ClassTarget(names=list("abcdefg"), counts=[1] * 7)


def scored_of_many(num_occurring: int) -> tuple[Classification, dict[str, Tensor], Tensor, Tensor]:
    torch.manual_seed(0)
    truth, logits = torch.randint(0, num_occurring, (SIZE,)), 2 * torch.randn(SIZE, 7)
    task = make_task(known=MANY)
    metrics = task.metrics()
    for start in range(0, SIZE, 7):
        part = truth[start : start + 7].tolist()
        task.update(metrics, logits[start : start + 7], make_batch([1] * len(part), [1] * len(part), part))
    return task, metrics.compute(), truth, logits


@pytest.mark.parametrize("num_occurring", [1, 4, 7])
def test_scores_of_probabilities_are_those_of_scikit_learn(num_occurring: int) -> None:
    task, values, truth, logits = scored_of_many(num_occurring)
    probability, has = logits.double().softmax(dim=1), torch.eye(7)[truth]
    expected = top_k_accuracy_score(truth, logits, k=5, labels=range(7))
    assert values["top5_accuracy"].item() == pytest.approx(expected)
    occurring = [c for c in range(7) if has[:, c].any()]
    precision = [average_precision_score(has[:, c], probability[:, c]) for c in occurring]
    assert values["mean_average_precision"].item() == pytest.approx(sum(precision) / len(precision), abs=0.02)
    chance = task.chance(values)
    counts = sorted(torch.bincount(truth, minlength=7).tolist())
    assert chance["top5_accuracy"] == pytest.approx(sum(counts[-5:]) / SIZE)
    assert chance["mean_average_precision"] == pytest.approx(1 / len(occurring))
    if num_occurring == 1:
        assert "auroc" not in values and "auroc" not in chance
        return
    areas = [roc_auc_score(has[:, c], probability[:, c]) for c in occurring]
    assert values["auroc"].item() == pytest.approx(sum(areas) / len(areas), abs=0.01)
    assert chance["auroc"] == 0.5


def test_five_guesses_are_for_more_than_five_classes() -> None:
    _, values = scored(labels(), torch.randn(SIZE, 3))
    assert "top5_accuracy" not in values and "calibration_error" in values


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_pictures_have_mixed_truths_in_training_alone(kind: str) -> None:
    model = make_model(tasks=("image_class",), fusion=None)
    del model.encoders["text"]
    task, batch = model.tasks["image_class"], make_batch([1, 2, 3, 0], [0] * 4, [0, 1, 2, 1])
    plain = model.view(batch).predictions("image_class")
    setattr(task, kind, 1.0)
    torch.manual_seed(0)
    mixed = model.view(batch).predictions("image_class")
    assert isinstance(mixed, Mixed)
    torch.testing.assert_close(mixed.truth.sum(dim=1), torch.ones(4))
    assert not torch.equal(mixed.logits[:3], plain[:3])
    total, count = task.loss(mixed, batch)
    expected = -(mixed.truth * mixed.logits.log_softmax(dim=1))[:3].sum()
    assert count == 3
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(model.eval().view(batch).predictions("image_class"), plain)


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(ValueError, match="set input to image, or both to 0"):
        make_task(mixup=0.2)
    with pytest.raises(ValueError, match="set them to 0 or more"):
        make_task("image", mixup=-0.2)
