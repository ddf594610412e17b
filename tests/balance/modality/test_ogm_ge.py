"""OGM-GE: factors against the formula row by row, scaled gradients, noise of the gradient's size."""

import math

import pytest
import torch
from torch import Tensor

from mmtrain.balance.modality.ogm_ge import OGMGE, modulation
from tests.batches import DIM, gradients, make_model, random_batch

DIMS = {"image": DIM, "text": DIM}


def backward(noise: bool, seed: int = 5) -> tuple[OGMGE, dict[str, Tensor], dict[str, Tensor]]:
    """Return gradients of two micro-batches before and after."""
    model = make_model(tasks=["classification"])
    balance = OGMGE(tasks=model.named_tasks(), dims=DIMS, alpha=0.8, noise=noise)
    for batch in (random_batch(1), random_batch(2)):
        view = model.view(batch)
        total, _ = model.tasks["classification"].loss(view.predictions("classification"), batch)
        balance.losses(view, {"classification": total})["classification"].backward()
    before = gradients(model)
    balance.modulate(model.encoders, seed=seed)
    return balance, before, gradients(model)


def plain_scores() -> dict[str, float]:
    """Return the mean probability of the truth over labelled rows with the modality."""
    model = make_model(tasks=["classification"])
    results: dict[str, list[float]] = {"image": [], "text": []}
    for batch in (random_batch(1), random_batch(2)):
        for modality, probabilities in results.items():
            logits = model(batch.only([modality]))["classification"].float()
            for row in range(len(batch)):
                if batch.labelled["label"][row] and batch.present[modality][row]:
                    exps = logits[row].exp()
                    probabilities.append(float(exps[batch.targets["label"][row]] / exps.sum()))
    return {m: sum(values) / len(values) for m, values in results.items()}


def test_the_modality_that_is_ahead_learns_more_slowly() -> None:
    balance, before, after = backward(noise=False)
    scores = plain_scores()
    ahead, behind = sorted(scores, key=lambda m: -scores[m])
    expected = {ahead: 1 - math.tanh(0.8 * scores[ahead] / scores[behind]), behind: 1.0}
    assert balance.factors == pytest.approx(expected, rel=1e-5)
    assert expected[ahead] < 0.6
    for name, gradient in after.items():
        modality = name.split(".")[1] if name.startswith("encoders") else behind
        torch.testing.assert_close(gradient, before[name] * balance.factors[modality], rtol=1e-12, atol=0)
    assert balance.values() == {f"modality_balance/{m}": k for m, k in balance.factors.items()}


def test_noise_has_the_size_of_the_gradient_and_follows_from_the_seed() -> None:
    balance, before, after = backward(noise=True)
    again, other = backward(noise=True)[2], backward(noise=True, seed=6)[2]
    for name, gradient in after.items():
        assert torch.equal(gradient, again[name])
        if not name.startswith("encoders") or gradient.ndim < 2:
            continue
        noise = gradient - before[name] * balance.factors[name.split(".")[1]]
        assert not torch.equal(gradient, other[name])
        if gradient.numel() >= 64:
            assert float(noise.std()) == pytest.approx(float(before[name].std()), rel=0.35), name


def test_of_three_each_is_compared_with_the_mean_of_the_others() -> None:
    factors = modulation([0.6, 0.3, 0.3], 0.5)
    assert factors == pytest.approx([1 - math.tanh(1.0), 1.0, 1.0])
    assert modulation([0.5, 0.5], 0.5) == [1.0, 1.0]
    assert modulation([0.0, 0.0], 0.5) == [1.0, 1.0]


def test_what_cannot_be_balanced_is_refused() -> None:
    options = {"alpha": 0.5, "noise": False}
    model = make_model(tasks=["contrastive", "image_class"])
    with pytest.raises(ValueError, match=r"none of the tasks contrastive, image_class predicts from fused features"):
        OGMGE(tasks=model.named_tasks(), dims=DIMS, **options)
    with pytest.raises(ValueError, match=r"image is the only modality; set modality_balance=none"):
        OGMGE(tasks=make_model().named_tasks(), dims={"image": DIM}, **options)
