"""The step: means over all micro-batches, gradients, clipping, what decays, what is logged, what is random."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn

from mmtrain.balance.fixed import Fixed
from mmtrain.balance.plain import BaseBalance
from mmtrain.data.order import mix
from mmtrain.modes import run as run_module
from mmtrain.training import lit_module
from mmtrain.training import step as step_module
from mmtrain.training.compile import compile_regions
from mmtrain.training.evaluation import _scalars
from mmtrain.training.lit_module import LitModel, _shown, _tables_of_places
from mmtrain.training.nonfinite import SkippedStep
from mmtrain.training.optim.schedules import cosine
from mmtrain.types import Bad, Batch, Confusion, Retrieval
from tests.balance.test_lengths import EXACT
from tests.batches import CLASSES, gradients, make_batch, make_model, random_batch
from tests.encoders.small_models import SMALL
from tests.runs import run_tiny, stop_and_resume, weights_of
from tests.steps import loader, make_lit, make_trainer
from tests.tiny import make_tables

CLASS_TASKS = ("classification", "image_class")
ALL = ("contrastive", "classification", "matching")


class Values(Logger):
    """Keeps what is logged."""

    name, version = "values", "0"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_hyperparams(self, *args: Any, **options: Any) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


def fit(lit: LitModel, windows: list[list[Batch]], folder: Path, **options: Any) -> list[tuple[int, dict[str, float]]]:
    """One epoch of these steps; what was logged at which step."""
    values = Values()
    trainer = make_trainer(folder, logger=values, **{"max_epochs": 1} | options)
    trainer.fit(lit, train_dataloaders=loader(windows))
    return [(step, row) for step, row in values.rows if step is not None]


def cut(batch: Batch, sizes: list[int]) -> list[Batch]:
    """The rows of a batch as micro-batches."""
    rows = torch.arange(len(batch)).split(sizes)
    return [replace(batch.map(lambda t, r=r: t[r]), ids=[batch.ids[i] for i in r.tolist()]) for r in rows]


def mean_loss(lit: LitModel, batch: Batch) -> Tensor:
    """The weighted sum of each task's mean over a complete batch, written again."""
    losses = lit.model.losses(batch)
    return sum(lit.tasks[name].weight * total / max(int(count), 1) for name, (total, count) in losses.items())


def test_no_module_sets_attributes_of_a_lightning_object() -> None:
    """They get what they need by their constructors, by arguments, or by Lightning's hooks."""
    sets = re.compile(
        r"^[^#(\"'\n]*\b(?:lit|trainer|pl_module)\.\w+(?:, [\w., ]+)? [+|]?= .*|^ *del lit\..*", re.MULTILINE
    )
    wrong = ["    lit.look = look", "    data.altered, lit.table, trainer.loggers = kept", "    del lit.span"]
    assert sets.findall("\n".join([*wrong, "    rows = lit.table"])) == wrong
    package = Path(lit_module.__file__).parents[1]
    results = {path.name: sets.findall(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")}
    assert {name: lines for name, lines in results.items() if lines} == {}


# ------------------------------------------------------------------ gradients


@pytest.mark.parametrize("sizes", [[12], [6, 6], [3, 3, 3, 3], [1] * 12, [7, 5]])
def test_how_a_step_is_cut_into_micro_batches_changes_no_gradient(sizes: list[int], tmp_path: Path) -> None:
    """A mean of means would: the micro-batches have differing numbers of labels, and one has none."""
    batch = random_batch(3, size=12)
    batch.labelled["label"][:3] = False
    lit, reference = make_lit(tasks=CLASS_TASKS), make_lit(tasks=CLASS_TASKS)
    ((_, logged),) = fit(lit, [cut(batch, sizes)], tmp_path)
    loss = mean_loss(reference, batch)
    loss.backward()
    expected = gradients(reference.model)
    for name, gradient in gradients(lit.model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-12, msg=name)
    assert logged["train/loss"] == pytest.approx(loss.item(), rel=1e-6)
    for name, (total, count) in reference.model.losses(batch).items():
        assert logged[f"train/{name}/loss"] == pytest.approx((total / count).item(), rel=1e-6)


def test_a_step_without_anything_to_learn_is_a_step_of_zero(tmp_path: Path) -> None:
    lit = make_lit(tasks=ALL)
    before = {name: value.clone() for name, value in lit.model.state_dict().items()}
    ((_, logged),) = fit(lit, [[make_batch([1, 0], [0, 2], [-1, -1])] * 2], tmp_path)
    assert logged["train/loss"] == logged["grad_norm"] == 0.0
    assert not any(gradient.any() for gradient in gradients(lit.model).values())
    assert all(torch.equal(before[name], value) for name, value in lit.model.state_dict().items())


@pytest.mark.parametrize("sizes", [[10], [4, 3, 3]])
@pytest.mark.parametrize("largest", [None, 0.01, 1e6])
def test_clipping_is_by_the_norm_of_all_gradients_of_the_step(
    largest: float | None, sizes: list[int], tmp_path: Path
) -> None:
    batch = random_batch(5, size=10)
    lit, reference = make_lit(tasks=CLASS_TASKS, gradient_clip_val=largest), make_lit(tasks=CLASS_TASKS)
    before = {name: p.detach().clone() for name, p in lit.model.named_parameters()}
    ((_, logged),) = fit(lit, [cut(batch, sizes)], tmp_path)
    mean_loss(reference, batch).backward()
    limit = math.inf if largest is None else largest
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), limit)
    assert norm > 0.01
    assert logged["grad_norm"] == pytest.approx(norm.item(), rel=1e-6)  # before it was clipped
    expected = gradients(reference.model)
    for name, gradient in gradients(lit.model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-12, msg=name)
    for name, parameter in lit.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * expected[name], rtol=0, atol=1e-12)


def test_every_step_begins_with_no_gradient(tmp_path: Path) -> None:
    """The second of two steps gives the weights that it alone would give from the same start."""
    first, second = random_batch(1), random_batch(2)
    lit, reference = make_lit(), make_lit()
    fit(lit, [[first], [second]], tmp_path)
    for batch in (first, second):
        reference.zero_grad()
        mean_loss(reference, batch).backward()
        with torch.no_grad():
            for parameter in reference.parameters():
                parameter -= 0.1 * parameter.grad
    for one, other in zip(lit.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


# ------------------------------------------------------------------- balances


@pytest.mark.parametrize("ratio", [1.0, 1e6, 1e-6])
@pytest.mark.parametrize("name", ["cagrad", "upgrad", "mgda"])
def test_the_exact_step_of_a_balance_reaches_the_parameters(name: str, ratio: float, tmp_path: Path) -> None:
    make, exact = EXACT[name]
    tasks = ("contrastive", *CLASS_TASKS)
    lit, reference = make_lit(tasks=tasks, balance=make()), make_lit(tasks=tasks)
    batch = random_batch(3, size=12)
    lit.tasks["image_class"].weight = reference.tasks["image_class"].weight = ratio
    fit(lit, [[batch]], tmp_path)
    losses = reference.model.losses(batch)
    rows = []
    for task, (total, count) in losses.items():
        reference.zero_grad()
        (reference.tasks[task].weight * total / count).backward(retain_graph=True)
        rows.append(shared_gradient(reference))
    jacobian = torch.stack(rows)
    expected = torch.from_numpy(exact(jacobian))
    assert (shared_gradient(lit) - expected).norm() < 1e-6 * expected.norm()


def shared_gradient(lit: LitModel) -> Tensor:
    """Of encoders and fusion."""
    parts = (lit.model.encoders, lit.model.fusion)
    results = [torch.zeros_like(p) if p.grad is None else p.grad for part in parts for p in part.parameters()]
    return torch.cat([gradient.flatten() for gradient in results])


class Giving(BaseBalance):
    """A balance that gives each task this weight, step by step."""

    def __init__(self, *given: float) -> None:
        super().__init__()
        self.given = list(given)

    def weights(self, look: Any) -> Tensor:
        return torch.full((len(look.names),), self.given.pop(0), dtype=torch.double)


def test_steps_in_which_every_weight_is_0_are_counted_and_warned_of_once(tmp_path: Path) -> None:
    lit = make_lit(tasks=CLASS_TASKS, balance=Giving(0.0, 1.0, 0.0, 0.0, 1.0))
    with pytest.warns(UserWarning, match="balance=Giving: the weight of every task is 0 in step 1") as caught:
        rows = fit(lit, [[random_batch(n)] for n in range(5)], tmp_path)
    assert [row["zero_steps"] for _, row in rows] == [1, 1, 2, 3, 3]
    assert sum("the weight of every task" in str(warning.message) for warning in caught) == 1
    kept: dict[str, Any] = {}
    lit.on_save_checkpoint(kept)
    other = make_lit(tasks=CLASS_TASKS, balance=Giving())
    other.on_load_checkpoint(kept)
    assert lit.zero_steps == other.zero_steps == 3


def test_a_step_without_anything_to_learn_is_no_fault_of_the_balance(tmp_path: Path) -> None:
    lit = make_lit(tasks=ALL, balance=Giving(0.0))
    ((_, logged),) = fit(lit, [[make_batch([1, 0], [0, 2], [-1, -1])]], tmp_path)
    assert logged["zero_steps"] == lit.zero_steps == 0


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_changes_nothing_and_is_reported(weight: float, tmp_path: Path) -> None:
    skipped: list[SkippedStep] = []
    lit = make_lit(tasks=CLASS_TASKS, balance=Giving(weight), on_step_skipped=skipped.append)
    before = {name: value.clone() for name, value in lit.model.state_dict().items()}
    batch = random_batch(0)
    fit(lit, [[batch]], tmp_path)
    assert [(s.first, s.ids) for s in skipped] == [("the weight that the balance gives classification", batch.ids)]
    assert all(torch.equal(before[name], value) for name, value in lit.model.state_dict().items())


# ----------------------------------------------------------------- randomness


class Draws(Fixed):
    """A balance that draws as dropout would, and keeps what it drew and the seed that it drew with."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds: list[int] = []
        self.drawn: list[float] = []

    def own_loss(self, losses: Tensor) -> Tensor | None:
        self.seeds.append(torch.initial_seed())
        self.drawn.append(float(torch.rand(())))
        return None


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Draws]:
    def run_steps(*, seed: int = 0, rank: int = 0, before: int = 0, num_micro_batches: int = 1) -> Draws:
        monkeypatch.setattr(step_module, "rank", lambda: rank)
        torch.manual_seed(before)
        balance = Draws()
        lit = make_lit(seed=seed, balance=balance, log_every_n_steps=100)
        fit(lit, [[random_batch(n)] * num_micro_batches for n in range(3)], tmp_path)
        return balance

    return run_steps


def test_the_draws_of_a_step_follow_from_seed_step_and_rank(drawn: Callable[..., Draws]) -> None:
    one = drawn()
    assert one.seeds[-3:] == [mix(0, step, 0) >> 1 for step in range(3)]
    assert drawn(before=99).drawn[-3:] == one.drawn[-3:]
    assert len({*one.drawn[-3:], *drawn(seed=1).drawn[-3:], *drawn(rank=1).drawn[-3:]}) == 9


def test_micro_batches_of_a_step_do_not_draw_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lit, seeds = make_lit(), []
    count = lit.tasks["classification"].loss
    monkeypatch.setattr(
        lit.tasks["classification"], "loss", lambda *given: (seeds.append(torch.initial_seed()), count(*given))[1]
    )
    fit(lit, [[random_batch(n)] * 3 for n in range(2)], tmp_path)
    assert seeds == [mix(0, step, 0, *([n] if n else [])) >> 1 for step in range(2) for n in range(3)]
    assert len(set(seeds)) == 6


# ------------------------------------------------------------------- optimizer


def decaying(module: nn.Module) -> set[int]:
    """The weight matrices, by the kind of layer that owns them."""
    layers = (nn.Linear, nn.Conv2d, nn.Embedding)
    return {id(layer.weight) for layer in module.modules() if isinstance(layer, layers)}


@pytest.mark.parametrize("fusion", ["concat", "cross_attn"])
def test_weight_matrices_decay_and_nothing_else_does(fusion: str, tmp_path: Path) -> None:
    """An embedding is a matrix; norms, biases, positions, class tokens, kinds, "absent" and temperatures are not."""
    lit = make_lit(
        model=make_model(tasks=ALL, fusion=fusion),
        balance=Draws(),
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1),
    )
    fit(lit, [[random_batch(0)]], tmp_path)
    optimizer = lit.optimizers().optimizer
    results = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(results)  # each once
    matrices = decaying(lit.model)
    expected = {name: 0.1 if id(p) in matrices else 0.0 for name, p in lit.model.named_parameters()}
    assert {name: results[id(p)] for name, p in lit.model.named_parameters()} == expected
    for spared in ("cls_token", "pos_embed", "norm.weight", "bias", "log_scale"):
        assert {decay for name, decay in expected.items() if name.endswith(spared)} == {0.0}, spared
    assert expected["encoders.text.embed.weight"] == expected["encoders.image.patch_embed.proj.weight"] == 0.1


@pytest.mark.parametrize(
    ("name", "spared"),
    [
        ("text/bert", ("position_embeddings", "token_type_embeddings")),
        ("text/huggingface", ()),  # ModernBERT has no learned positions
    ],
)
def test_positions_and_kinds_of_other_libraries_do_not_decay(name: str, spared: tuple[str, ...]) -> None:
    lit = make_lit()
    lit.model.encoders["text"] = SMALL[name](0.0)
    decaying_ids = {id(p) for _, decays, parameters in lit.parameter_groups() if decays for p in parameters}
    tables = {n: m for n, m in lit.model.encoders["text"].named_modules() if isinstance(m, nn.Embedding)}
    results = {n.rpartition(".")[2] for n, table in tables.items() if id(table.weight) not in decaying_ids}
    assert results == set(spared) and len(tables) > len(spared)


@pytest.mark.parametrize(
    ("name", "numbers_places"),
    [
        *((n, True) for n in ("wpe", "embed_positions", "relative_attention_bias", "rel_embeddings", "pos_emb")),
        *((n, False) for n in ("wte", "embed", "embed_tokens", "shared", "word_embeddings", "composed")),
    ],
)
def test_which_tables_number_places(name: str, numbers_places: bool) -> None:
    module = nn.ModuleDict({name: nn.Embedding(3, 2)})
    assert _tables_of_places(module) == ({id(module[name].weight)} if numbers_places else set())


def test_frozen_parameters_are_given_to_no_optimizer(tmp_path: Path) -> None:
    lit = make_lit(optimizer=partial(torch.optim.AdamW, lr=0.1, weight_decay=0.1))
    lit.model.encoders["image"].requires_grad_(False)
    before = {name: p.clone() for name, p in lit.model.encoders["image"].state_dict().items()}
    fit(lit, [[random_batch(0)]], tmp_path)
    trained = {id(p) for group in lit.optimizers().optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in lit.parameters() if p.requires_grad}
    assert all(torch.equal(before[n], p) for n, p in lit.model.encoders["image"].state_dict().items())


def test_the_learning_rate_of_a_step_is_the_one_that_is_logged(tmp_path: Path) -> None:
    lit = make_lit(schedule=partial(cosine, warmup_ratio=0.5, min_lr_ratio=0.0))
    before = [p.detach().clone() for p in lit.parameters()]
    rows = fit(lit, [[random_batch(n)] for n in range(4)], tmp_path)
    expected = [0.1 * cosine(step, 4, warmup_ratio=0.5, min_lr_ratio=0.0) for step in range(4)]
    assert [row["lr"] for _, row in rows] == pytest.approx(expected)
    (_, first), *_ = fit(again := make_lit(schedule=lit.schedule), [[random_batch(0)]], tmp_path)
    moved = math.sqrt(
        sum(float((b - p).detach().square().sum()) for b, p in zip(before, again.parameters(), strict=True))
    )
    assert moved == pytest.approx(first["lr"] * first["grad_norm"], rel=1e-6)


# --------------------------------------------------------------------- logging


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [1, 3, 5]), (5, [1]), (10, [1, 3, 5])])
def test_training_values_are_logged_at_every_nth_optimizer_step(
    every: int, expected: list[int], tmp_path: Path
) -> None:
    """The step is that of the optimizer, for any number of micro-batches."""
    rows = fit(make_lit(tasks=ALL, log_every_n_steps=every), [cut(random_batch(n), [4, 4]) for n in range(5)], tmp_path)
    assert [step for step, _ in rows] == expected
    names = {"lr", "grad_norm", "train/loss", "time/samples_per_second", "epoch", "grad_norm/image", "grad_norm/text"}
    assert {name for _, row in rows for name in row} == names | {f"train/{task}/loss" for task in ALL}
    assert all(row["time/samples_per_second"] > 0 for _, row in rows)


@pytest.mark.parametrize(
    ("num_steps", "options", "expected"),
    [
        (22, {"max_epochs": 2}, [1, 11, 21, 31, 41]),
        (7, {"max_epochs": 2}, [1, 4, 7, 10, 13]),
        (2, {"max_epochs": 3}, [1, 2, 3, 4, 5, 6]),
        (1, {"max_epochs": 2}, [1, 2]),
        (22, {"max_epochs": -1, "max_steps": 6}, [1, 4]),
    ],
)
def test_short_epochs_and_short_runs_are_logged_more_often(
    num_steps: int, options: dict[str, int], expected: list[int], tmp_path: Path
) -> None:
    """Each epoch has a row of its own, which the console repeats at its end."""
    lit = make_lit(tasks=("classification",), log_every_n_steps=10)
    rows = fit(lit, [[make_batch([1, 2], [3, 4], [0, 1])]] * num_steps, tmp_path, **options)
    assert [step for step, _ in rows] == expected
    assert all("grad_norm/image" in row for _, row in rows)


def test_the_gradient_norm_of_each_encoder_is_logged(tmp_path: Path) -> None:
    lit = make_lit(tasks=ALL, gradient_clip_val=1e-3)
    ((_, row),) = fit(lit, [[random_batch(3)]], tmp_path)
    reference = make_lit(tasks=ALL)
    torch.manual_seed(mix(0, 0, 0) >> 1)
    mean_loss(reference, random_batch(3)).backward()
    for modality, encoder in reference.model.encoders.items():
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in encoder.parameters()))
        assert row[f"grad_norm/{modality}"] == pytest.approx(norm, rel=1e-6)


def test_callbacks_can_watch_what_is_logged(tmp_path: Path) -> None:
    class Watch(Callback):
        seen: Mapping[str, Tensor] = {}

        def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
            self.seen = dict(trainer.callback_metrics)

    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[watch := Watch()])
    trainer.fit(make_lit(), loader([[random_batch(0)]]), loader([[random_batch(1)]]))
    assert {"train/loss", "val/loss", "val/classification/accuracy"} <= set(watch.seen)


def test_the_scalars_of_computed_values_come_with_their_chance() -> None:
    values = {
        "R@1": torch.tensor(0.5),
        "R@1/chance": torch.tensor(0.1),
        "rows": torch.zeros(3),
        "f1": torch.tensor(0.25),
    }
    assert _scalars("pairs", values, {"R@1": 0.1}) == {
        "pairs/R@1": {"value": 0.5, "chance": 0.1},
        "pairs/f1": {"value": 0.25, "chance": None},
    }


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"train/loss": 1.0, "time/samples_per_second": 9.0, "lr": 0.1}, {"loss": 1.0, "samples/s": 9.0}),
        ({"val/loss": 2.0, "val/classification/accuracy": 0.5}, {"val_loss": 2.0}),
        ({"test/loss": 2.0}, {}),
    ],
)
def test_the_progress_bar_has_room_for_three(values: dict[str, float], shown: dict[str, float]) -> None:
    assert _shown(values) == shown


# ------------------------------------------------------------------ evaluation


def evaluate(lit: LitModel, windows: list[list[Batch]], folder: Path, stage: str = "validate") -> dict[str, float]:
    """What was logged."""
    values = Values()
    getattr(make_trainer(folder, logger=values), stage)(lit, loader(windows), verbose=False)
    return {name: value for _, row in values.rows for name, value in row.items()}


@pytest.mark.parametrize("sizes", [[12], [5, 7], [1] * 12])
def test_an_evaluation_is_of_the_split_and_not_of_its_batches(sizes: list[int], tmp_path: Path) -> None:
    lit, batch = make_lit(tasks=CLASS_TASKS), random_batch(8, size=12)
    logged = evaluate(lit, [[part] for part in cut(batch, sizes)], tmp_path)
    with torch.no_grad():
        losses, predictions = lit.model.losses(batch), lit.model(batch)
        assert logged["val/loss"] == pytest.approx(mean_loss(lit, batch).item(), rel=1e-6)
    for name, task in lit.tasks.items():
        total, count = losses[name]
        rows = batch.labelled["label"] & (batch.present["image"] | (batch.present["text"] & (name == "classification")))
        right = predictions[name].argmax(dim=1) == batch.targets["label"]
        assert int(count) == int(rows.sum())
        assert logged[f"val/{name}/loss"] == pytest.approx((total / count).item(), rel=1e-6)
        assert logged[f"val/{name}/accuracy"] == pytest.approx(right[rows].double().mean().item())
        values = lit.evaluation.metrics[name].compute()
        assert lit.table[f"{name}/accuracy"]["chance"] == task.chance(values)["accuracy"]


def test_an_evaluation_forgets_the_one_before(tmp_path: Path) -> None:
    lit = make_lit(tasks=ALL)
    once = evaluate(lit, [[random_batch(1)]], tmp_path)
    evaluate(lit, [[random_batch(2)]], tmp_path)
    assert evaluate(lit, [[random_batch(1)]], tmp_path) == once


def test_a_task_without_anything_to_judge_is_left_out(tmp_path: Path) -> None:
    lit = make_lit(tasks=ALL)
    logged = evaluate(lit, [[make_batch([1, 2, 3], [4, 5, 6], [-1, -1, -1])]], tmp_path)
    assert not any("classification" in name for name in [*logged, *lit.table])
    assert {"val/contrastive/loss", "val/matching/loss", "val/loss"} <= set(logged)
    expected = lit.tasks["contrastive"].weight * logged["val/contrastive/loss"]
    expected += lit.tasks["matching"].weight * logged["val/matching/loss"]
    assert logged["val/loss"] == pytest.approx(expected, rel=1e-6)


def test_a_test_judges_the_fused_features_with_each_modality_alone(tmp_path: Path) -> None:
    """Only tasks that can be judged so: matching needs both, image_class does not read what is fused."""
    tasks, subsets = ("classification", "matching", "image_class"), [("image",), ("text",)]
    lit, batch = make_lit(tasks=tasks, test_subsets=subsets), random_batch(8, size=12)
    logged = evaluate(lit, [[part] for part in cut(batch, [6, 6])], tmp_path, "test")
    alone = {name for name in logged if "_only" in name}
    scores = ("accuracy", "macro_f1", "auroc", "mean_average_precision", "calibration_error")
    assert alone == {f"test/classification/{m}_only/{v}" for m in ("image", "text") for v in scores}
    for (modality,) in subsets:
        other = evaluate(lit, [[batch.only([modality])]], tmp_path)
        assert logged[f"test/classification/{modality}_only/accuracy"] == other["val/classification/accuracy"]
    assert len({logged[f"test/classification/{m}accuracy"] for m in ("", "image_only/", "text_only/")}) > 1


def test_labelled_rows_without_any_input_are_counted(tmp_path: Path) -> None:
    lit = make_lit(tasks=ALL)
    batch = make_batch([1, 0, 2, 0, 0], [3, 0, 0, 4, 0], [0, 1, 2, 0, -1])
    evaluate(lit, [[batch]], tmp_path, "test")
    assert lit.evaluation.not_judged == [{"split": "test", "task": "classification", "rows": 1, "of": 4}]
    assert lit.table["classification/accuracy"]["rows"] == 3
    evaluate(lit, [[make_batch([1, 2], [3, 4], [0, 1])]], tmp_path)
    assert lit.evaluation.not_judged == []


def test_a_subset_is_compared_with_all_modalities_on_the_same_rows(tmp_path: Path) -> None:
    lit = make_lit(tasks=("classification",), test_subsets=[("image",), ("text",)])
    batch = make_batch([1, 2, 3, 4, 0, 0], [5, 6, 0, 0, 7, 8], [0, 1, 2, 0, 1, 2])
    evaluate(lit, [[part] for part in cut(batch, [4, 2])], tmp_path, "test")
    table = lit.table
    assert table["classification/accuracy"]["rows"] == 6
    for modality in ("image", "text"):
        known = replace(batch, labelled={"label": batch.labelled["label"] & batch.present[modality]})
        there = evaluate(lit, [[known]], tmp_path, "test")
        for metric in ("accuracy", "macro_f1", "auroc"):
            entry = table[f"classification/{modality}_only/{metric}"]
            assert entry["rows"] == 4
            assert entry["all_modalities"] == pytest.approx(there[f"test/classification/{metric}"])


def test_validation_says_what_each_modality_carries(tmp_path: Path) -> None:
    """Its accuracy alone, if rows have it at all, and its share of the attention."""
    model = make_model(tasks=("classification",), fusion="merged_attn")
    lit, batch = make_lit(model=model, test_subsets=[("image",), ("text",)]), random_batch(8, size=12)
    logged = evaluate(lit, [[part] for part in cut(batch, [6, 6])], tmp_path)
    with torch.no_grad():
        maps = lit.model.view(batch).attention()
    sums = {m: sum(float(w.sum()) for (_, key), w in maps.items() if key == m) for m in ("image", "text")}
    for modality, weight in sums.items():
        assert logged[f"attention/{modality}"] == pytest.approx(weight / sum(sums.values()), rel=1e-6)
        assert f"val/classification/{modality}_only/accuracy" in logged
    without = evaluate(lit, [[batch.only(["image"])]], tmp_path)
    assert without["attention/image"] == 1.0
    assert not any("text_only" in name for name in without)


def test_exhibits_name_the_rows_of_the_split_that_was_judged(tmp_path: Path) -> None:
    lit = make_lit(tasks=ALL, row_id=lambda stage, row: f"{stage}-{row}")
    evaluate(lit, [[make_batch([1, 2], [3, 4], [0, 1], first=5)]], tmp_path, "test")
    confusion = [e for e in lit.report_items if isinstance(e, Confusion)]
    retrieval = [e for e in lit.report_items if isinstance(e, Retrieval)]
    assert [e.names for e in confusion] == [CLASSES]
    assert {name for e in retrieval for name in e.queries} == {"test-5", "test-6"}


def test_a_checkpoint_that_is_only_looked_at_logs_at_its_own_step(tmp_path: Path) -> None:
    lit = make_lit(checkpoint_step=42)
    values = Values()
    make_trainer(tmp_path, logger=values).test(lit, loader([[random_batch(0)]]), verbose=False)
    assert [step for step, row in values.rows if "test/loss" in row] == [42]
    assert not any("epoch" in row for _, row in values.rows)


def test_predictions_are_one_row_a_sample_and_none_for_a_filler(tmp_path: Path) -> None:
    batch = replace(make_batch([1, 0, 2, 0], [3, 0, 0, 0], first=7), ids=["a", "b", "c", ""])
    (rows,) = make_trainer(tmp_path).predict(make_lit(tasks=ALL), loader([[batch]]))
    assert [(row["id"], row["row"]) for row in rows] == [("a", 7), ("b", 8), ("c", 9)]
    told = [sorted(set(row) - {"id", "row", "not_predicted"}) for row in rows]
    assert told == [sorted(ALL), [], ["classification"]]
    assert rows[0]["classification"]["label"] in CLASSES


def test_a_prediction_that_is_not_there_has_its_reason(tmp_path: Path) -> None:
    batch = replace(make_batch([1, 0, 2], [3, 0, 0], first=7), ids=["a", "b", "c"])
    batch.bad.append(Bad(id="b", row=8, file="b.png", reason="b.png: cut off"))
    (rows,) = make_trainer(tmp_path).predict(make_lit(tasks=("classification", "matching")), loader([[batch]]))
    assert "not_predicted" not in rows[0]
    assert rows[1]["not_predicted"] == dict.fromkeys(("classification", "matching"), "cannot be read: b.png: cut off")
    assert rows[2]["not_predicted"] == {"matching": "missing: text"}
    batch.bad.clear()
    (rows,) = make_trainer(tmp_path).predict(make_lit(tasks=("classification",)), loader([[batch]]))
    assert rows[1]["not_predicted"] == {"classification": "missing: image, text"}


# --------------------------------------------------------------------- compile


@pytest.mark.slow
def test_a_run_goes_on_compiled_and_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the backend that only traces: to make machine code takes minutes on a small machine."""
    monkeypatch.setattr(
        run_module, "compile_regions", lambda model, **o: compile_regions(model, **o | {"backend": "eager"})
    )
    tables = make_tables(tmp_path / "data")
    plain = ["task=[classification]", "fusion=concat", "schedule=constant", "schedule.warmup_ratio=0"]
    compiled = [*plain, "trainer.compile=true"]
    assert run_tiny(tables, tmp_path / "plain", *plain) == 0
    stop_and_resume(3, tables, tmp_path / "changing", *compiled)
    one, other = weights_of(tmp_path / "plain"), weights_of(tmp_path / "changing")
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5, msg=name)
