"""The model: only what is there is encoded, each view once, and a missing modality is just an all-False mask."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mmtrain.errors import ConfigError
from mmtrain.model import MultimodalModel, encode_present
from mmtrain.types import Batch, Features, Padded
from tests.batches import DIM, assert_same_bits, gradients, make_batch, make_model, random_batch

ALL = ("contrastive", "classification", "matching")


class Spy(nn.Module):
    """An encoder with a batch norm and a dropout that is kept off, which notes what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, DIM).double()
        self.norm = nn.BatchNorm1d(DIM).double()
        self.frozen = nn.Dropout(0.5).eval()
        self.seen: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        self.seen.append((values, mask))
        x = self.frozen(self.norm(self.linear(values).flatten(0, 1)).view(*values.shape[:2], DIM))
        return Features(x, torch.ones(values.shape[:2], dtype=torch.bool) if mask is None else mask)


def sequence_batch(present: list[bool], *, padded: bool) -> Batch:
    """Rows of four vectors, with NaN where nothing is."""
    size, there = len(present), torch.tensor(present)
    values = torch.randn(size, 4, 3, dtype=torch.float64).masked_fill(~there[:, None, None], math.nan)
    mask = torch.tensor([True, True, True, False]).expand(size, -1) & there.unsqueeze(1) if padded else None
    batch = make_batch([0] * size, [0] * size)
    return replace(batch, inputs={"audio": Padded(values, mask)}, present={"audio": there})


padded_or_not = pytest.mark.parametrize("padded", [True, False])


@padded_or_not
@pytest.mark.parametrize("present", [[True] * 3, [True, False, True], [False, False, True]])
def test_only_rows_that_have_the_modality_are_encoded(present: list[bool], padded: bool) -> None:
    spy, batch = Spy(), sequence_batch(present, padded=padded)
    tokens, mask = encode_present(spy, batch, "audio")
    values, input_mask = batch.inputs["audio"]
    rows = torch.tensor(present)
    (seen, seen_mask), *more = spy.seen
    assert not more
    assert torch.equal(seen, values[rows])
    assert (seen_mask is None) if input_mask is None else torch.equal(seen_mask, input_mask[rows])
    assert tokens.shape == (3, 4, DIM) and mask.shape == (3, 4)
    assert torch.equal(mask.any(dim=1), rows)
    assert not tokens[~mask].any() and tokens[mask].any()
    direct = Spy()
    direct.load_state_dict(spy.state_dict())
    direct.norm.load_state_dict(Spy().norm.state_dict())
    expected = direct(seen, seen_mask).cleared().tokens
    assert torch.equal(tokens[rows], expected)
    tokens.square().sum().backward()
    expected.square().sum().backward()
    assert_same_bits(gradients(spy), gradients(direct))


@padded_or_not
@pytest.mark.parametrize("training", [True, False])
def test_without_a_row_every_parameter_has_a_gradient_of_zero_and_nothing_else_moves(
    padded: bool, training: bool
) -> None:
    spy, batch = Spy().train(training), sequence_batch([False] * 3, padded=padded)
    spy.frozen.eval()
    before = {name: value.clone() for name, value in spy.state_dict().items()}
    modes = [module.training for module in spy.modules()]
    random_state = torch.get_rng_state()
    tokens, mask = encode_present(spy, batch, "audio")
    assert tokens.shape == (3, 4, DIM) and not tokens.any()
    assert mask.shape == (3, 4) and mask.dtype is torch.bool and not mask.any()
    tokens.sum().backward()
    assert not any(gradient.any() for gradient in gradients(spy).values())
    assert_same_bits(before, spy.state_dict())  # also the running statistics of the batch norm
    assert [module.training for module in spy.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)


def test_rows_of_a_batch_norm_count_once_each() -> None:
    """Absent rows are not in the statistics: the same as a batch of the present ones alone."""
    one, other = Spy(), Spy()
    other.load_state_dict(one.state_dict())
    batch = sequence_batch([True, False, True], padded=False)
    encode_present(one, batch, "audio")
    other(batch.inputs["audio"].values[[0, 2]], None)
    assert_same_bits(one.state_dict(), other.state_dict())


def count_calls(model: MultimodalModel) -> Counter[str]:
    calls: Counter[str] = Counter()
    parts = {**dict(model.encoders.items()), **dict(model.tasks.items())}
    if model.fusion is not None:
        parts["fusion"] = model.fusion
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: calls.update([name]))
    return calls


@pytest.mark.parametrize("training", [True, False])
def test_each_view_is_computed_at_most_once(training: bool) -> None:
    """The clean view's fusion serves two tasks; matching adds two wrong pairings in training, one in evaluation."""
    model = make_model(tasks=ALL).train(training)
    calls = count_calls(model)
    model.losses(random_batch(0))
    assert calls == {"image": 1, "text": 1, "fusion": 3 if training else 2, **dict.fromkeys(ALL, 1)}


def test_what_no_task_asks_for_is_not_computed() -> None:
    model = make_model(tasks=("image_class",))
    calls = count_calls(model)
    model(random_batch(0))
    assert calls == {"image": 1, "image_class": 1}


def test_a_view_asks_once_and_keeps() -> None:
    model = make_model()
    view = model.view(random_batch(0))
    assert view.encoded("image") is view.encoded("image")
    assert view.features("image") is view.encoded("image")
    assert view.features("fused") is view.fused() is view.fused()
    assert view.predictions("contrastive") is view.predictions("contrastive")


def test_a_paired_view_takes_a_modality_from_other_rows() -> None:
    model = make_model().eval()
    batch = make_batch([1, 2, 0], [11, 12, 13])
    view = model.view(batch)
    moved = view.paired({"text": torch.tensor([1, 0, 2])})
    assert torch.equal(moved.encoded("image").tokens, view.encoded("image").tokens)
    assert torch.equal(moved.encoded("text").tokens, view.encoded("text").tokens[[1, 0, 2]])
    assert torch.equal(moved.encoded("text").mask, view.encoded("text").mask[[1, 0, 2]])
    direct = model.view(make_batch([1, 2, 0], [12, 11, 13])).fused()
    torch.testing.assert_close(moved.fused().tokens, direct.tokens, rtol=0, atol=1e-12)
    assert not torch.equal(view.fused().tokens, moved.fused().tokens)


def test_a_view_of_some_modalities_is_that_of_rows_that_have_no_others() -> None:
    """And the encoders run once for all such views."""
    model, batch = make_model().eval(), random_batch(3)
    full = model.view(batch)
    for modality in ("image", "text"):
        part, expected = full.only([modality]), model.view(batch.only([modality]))
        assert part.batch.present.keys() == batch.present.keys()
        assert_same_bits(part.batch.present, expected.batch.present)
        assert part.encoded(modality) is full.encoded(modality)
        one, other = part.predictions("classification"), expected.predictions("classification")
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
        assert not torch.equal(one, full.predictions("classification"))


def test_losses_and_predictions_are_those_of_the_tasks() -> None:
    model, batch = make_model(tasks=("contrastive", "classification")), random_batch(3)
    losses, predictions = model.losses(batch), model(batch)
    assert set(losses) == set(predictions) == {"contrastive", "classification"}
    for name, task in model.named_tasks().items():
        for one, other in zip(losses[name], task.loss(predictions[name], batch), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("training", [True, False])
def test_the_order_of_tasks_does_not_matter(training: bool) -> None:
    """What one task reads without a gradient, such as the similarities for matching, another learns from."""
    results, batch = [], random_batch(6, size=12)
    for names in (ALL, ALL[::-1], ("matching", "contrastive", "classification")):
        model = make_model(tasks=ALL).train(training)
        model.tasks = nn.ModuleDict({name: model.tasks[name] for name in names})
        torch.manual_seed(1)
        losses = model.losses(batch)
        sum(losses[name][0] for name in ALL).backward()
        found = {name: losses[name][0].detach() for name in ALL} | gradients(model)
        assert all(found[name] > 0 for name in ALL)
        results.append(dict(sorted(found.items())))
    for other in results[1:]:
        for name, value in results[0].items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fusion", ["concat", "cross_attn"])
def test_a_sample_does_not_depend_on_its_batch(fusion: str) -> None:
    model, batch = make_model(tasks=("contrastive", "classification"), fusion=fusion).eval(), random_batch(4)
    together = model(batch)
    for row in range(len(batch)):
        rows = torch.tensor([row])
        alone = model(replace(batch.map(lambda t, rows=rows: t[rows]), ids=["row"]))
        torch.testing.assert_close(alone["classification"][0], together["classification"][row], rtol=0, atol=1e-12)
        for modality in ("image", "text"):
            if batch.present[modality][row]:  # of no meaning in the others
                one, other = (result["contrastive"][modality] for result in (alone, together))
                torch.testing.assert_close(one[0], other[row], rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize("fusion", ["concat", "cross_attn"])
@pytest.mark.parametrize("missing", ["image", "text", "both"])
def test_every_parameter_has_a_gradient_when_the_batch_lacks_a_modality(fusion: str, missing: str) -> None:
    model = make_model(tasks=ALL, fusion=fusion)
    batch = random_batch(0)
    batch = batch.only([m for m in ("image", "text") if missing not in (m, "both")])
    sum(total for total, _ in model.losses(batch).values()).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


def test_all_is_saved_and_restored() -> None:
    one, other = make_model(), make_model()
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    other.load_state_dict(one.state_dict())
    batch = random_batch(0)
    first, second = one.eval()(batch), other.eval()(batch)
    assert torch.equal(first["classification"], second["classification"])
    assert_same_bits(first["contrastive"], second["contrastive"])


def test_a_fusion_that_was_not_built_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="no fusion was built"):
        make_model(tasks=("contrastive",), fusion=None).view(random_batch(0)).fused()


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_runs(autocast: bool) -> None:
    model = make_model(tasks=ALL).to(torch.float32 if autocast else torch.bfloat16)
    dtype = next(model.parameters()).dtype
    batch = random_batch(0).map(lambda t: t.to(dtype) if t.is_floating_point() else t)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = model.losses(batch)
    sum(total for total, _ in losses.values()).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


def test_a_rank_without_a_row_is_named_before_synchronized_batch_norms_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spy, batch = Spy(), sequence_batch([False] * 3, padded=False)
    spy.norm = nn.SyncBatchNorm(DIM).double()
    encode_present(spy, batch, "audio")
    monkeypatch.setattr("mmtrain.model.world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"trainer\.sync_batchnorm=true: no row of rank 0 has audio"):
        encode_present(spy, batch, "audio")
    encode_present(spy.eval(), batch, "audio")
