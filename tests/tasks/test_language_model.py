"""The language model task: loss against a loop over rows, what a row can read, packing, answers, training."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn

from mmtrain.errors import ConfigError
from mmtrain.layers.causal_lm import CausalLM
from mmtrain.layers.splice import lay_out, splice
from mmtrain.model import MultimodalModel
from mmtrain.tasks.language_model import LanguageModel
from mmtrain.types import Batch, Captions, ClassTarget, Padded
from tests.batches import assert_same_bits, gradients
from tests.dialogues import (
    ANSWERED,
    CONFIGS,
    IMAGE,
    KNOWN,
    PICTURES,
    ROWS,
    batch_of,
    decoding_of,
    make_model,
    make_task,
    source_of,
)

each_kind = pytest.mark.parametrize("kind", CONFIGS)


def task_of(model: MultimodalModel) -> LanguageModel:
    task = model.tasks["answers"]
    assert isinstance(task, LanguageModel)
    return task


def loss_of(model: MultimodalModel, batch: Batch) -> tuple[Tensor, Tensor]:
    return model.losses(batch)["answers"]


def scored(model: MultimodalModel, *batches: Batch) -> dict[str, Tensor]:
    task = task_of(model)
    metrics = task.metrics()
    for batch in batches:
        task.update(metrics, model.view(batch).predictions("answers"), batch)
    return metrics.compute()


def embedded(model: MultimodalModel, batch: Batch, row: int, ids: list[int]) -> Tensor:
    """Return (1, T, D), token by token, with the image tokens at their placeholder if the row has an image."""
    task = task_of(model)
    tokens, mask = model.view(batch).encoded("image")
    parts = []
    for number in ids:
        if number == IMAGE:
            parts += [task.connectors["image"].mlp(token) for token in tokens[row][mask[row]]]
        else:
            parts.append(task.lm.model.get_input_embeddings().weight[number])
    return torch.stack(parts).unsqueeze(0)


# ------------------------------------------------------------------------ the loss


@each_kind
@pytest.mark.parametrize("pack", [None, 24, 1000])
def test_the_loss_is_a_loop_over_rows(kind: str, pack: int | None) -> None:
    """Each row alone, through the library's unchanged model; values and gradients, packed or not."""
    model, batch = make_model(kind, pack=pack), batch_of()
    total, count = loss_of(model, batch)
    total.backward()
    result = gradients(model)
    model.zero_grad()
    expected, number = torch.zeros((), dtype=torch.float64), 0
    for row in ANSWERED:
        ids, flags = ROWS[row]
        logits = task_of(model).lm.model(inputs_embeds=embedded(model, batch, row, ids)).logits[0].log_softmax(dim=1)
        for back in range(1, len(ids)):  # from the end, where every token has one position
            if flags[-back] > 0:
                expected, number = expected - logits[-back - 1, ids[-back]], number + 1
    assert count == number == task_of(model).count(batch)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    for name, gradient in gradients(model).items():  # the loss is computed in float32
        torch.testing.assert_close(
            result[name], gradient, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: name + text
        )


@each_kind
def test_packing_changes_the_lines_and_not_the_loss(kind: str) -> None:
    models = [make_model(kind, pack=pack) for pack in (None, 20, 60)]
    losses = [(total / count).item() for total, count in (loss_of(model, batch_of()) for model in models)]
    assert max(losses) - min(losses) < 1e-5
    values = batch_of().targets["chat"]
    keep = values[..., 1] >= 0
    spliced = splice(values, keep, lambda ids: torch.zeros(len(ids), 1), {}, inserted=True)
    lines = [lay_out(spliced, room=room) for room in (None, 20, 60)]
    assert [(each.number, each.width) for each in lines] == [(6, 9), (2, 20), (1, 30)]
    for each in lines:
        assert len(set(each.slot.tolist())) == len(each.slot) == int(keep.sum())


def test_a_row_reads_no_other_row() -> None:
    """Other rows of its line may have any values, and the result is equal to the last bit."""
    losses = []
    for other in (PICTURES[1], 5):
        model = make_model(pack=1000)
        batch = batch_of(pictures=[PICTURES[0], other, *PICTURES[2:]])
        logits = model.view(batch).predictions("answers").logits
        losses.append(torch.cat([logits[:3], logits[8:]]))
    assert torch.equal(*losses)


def test_a_model_with_a_state_is_not_packed() -> None:
    sizes = {"model_type": "mamba", "hidden_size": 8, "num_hidden_layers": 1, "state_size": 4}
    make_task(lm=source_of(config=sizes))
    with pytest.raises(ValueError, match="a mamba accepts no mask that separates rows on a line: set pack to null"):
        make_task(lm=source_of(config=sizes), pack=100)


def test_cutting_a_batch_gives_the_same_sum() -> None:
    model = make_model()
    full = loss_of(model, batch_of())
    for cut in (1, 3, 5):
        parts = [loss_of(model, batch_of(ROWS[p], PICTURES[p])) for p in (slice(None, cut), slice(cut, None))]
        torch.testing.assert_close(parts[0][0] + parts[1][0], full[0])
        assert parts[0][1] + parts[1][1] == full[1]


def test_what_is_learned_is_answers_alone() -> None:
    """Prompt tokens are not targets: they affect the loss only as inputs."""
    model, batch = make_model(), batch_of()
    logits = model.view(batch).predictions("answers")
    assert logits.wanted.tolist() == [i for row in ANSWERED for i, flag in zip(*ROWS[row], strict=True) if flag > 0]
    assert logits.logits.shape == (int(task_of(model).count(batch)), len(KNOWN.names))


@pytest.mark.parametrize("pack", [None, 24])
@pytest.mark.parametrize("garbage", [math.nan, 1e30])
def test_what_a_row_lacks_changes_no_bit(garbage: float, pack: int | None) -> None:
    model, batch = make_model(pack=pack), batch_of()
    dirty = replace(
        batch,
        inputs={
            "image": Padded(
                batch.inputs["image"].values.masked_fill(~batch.present["image"][:, None, None, None], garbage), None
            )
        },
        targets={
            "chat": batch.targets["chat"].masked_fill(~batch.labelled["chat"][:, None, None], 10**9),
        },
    )
    results = []
    for rows in (batch, dirty):
        model.zero_grad()
        total, count = loss_of(model, rows)
        total.backward()
        results.append({"loss": total.detach(), "count": count, **gradients(model), **scored(model, rows)})
    assert_same_bits(*results)


@pytest.mark.parametrize("training", [True, False])
def test_without_an_answer_every_gradient_is_zero(training: bool) -> None:
    model = make_model().train(training)
    batch = batch_of([([], []), ([2, 5, 6], [0, 0, 0])], [1, 0])
    total, count = loss_of(model, batch)
    assert (total.item(), count.item(), task_of(model).count(batch).item()) == (0.0, 0, 0)
    total.backward()
    assert not any(p.grad is None or p.grad.any() for p in model.tasks.parameters())
    assert scored(model.eval(), batch) == {}


@each_kind
def test_every_parameter_learns(kind: str) -> None:
    model = make_model(kind)
    loss_of(model, batch_of())[0].backward()
    assert [name for name, gradient in gradients(model.tasks).items() if not gradient.any()] == []


# -------------------------------------------------------------------------- answers


@each_kind
def test_answers_are_the_likeliest_tokens_one_by_one(kind: str) -> None:
    """Greedy, with the library's complete model without a cache or padding."""
    model, batch = make_model(kind), batch_of()
    task = task_of(model)
    predictions = task.rows(model.view(batch).predictions("answers"), batch)
    assert [bool(row) for row in predictions] == [True, True, True, False, True, True]
    for row in (0, 1, 2, 4, 5):
        ids, flags = ROWS[row]
        requested = len(flags) - next(i for i in range(len(flags) + 1) if i == len(flags) or flags[-1 - i] <= 0)
        embeds, written = embedded(model, batch, row, ids[:requested]), []
        while len(written) < 6 and written[-1:] != [1]:
            scores = task.lm.model(inputs_embeds=embeds).logits[0, -1]
            scores[task.lm.never] = -math.inf
            written.append(int(scores.argmax()))
            embeds = torch.cat([embeds, task.lm.embed(torch.tensor([[written[-1]]]))], dim=1)
        assert predictions[row]["chat"] == KNOWN.write(written)


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_cutting_a_batch_writes_the_same_answers(method: str) -> None:
    model = make_model(decoding=decoding_of(method))
    full = scored(model, batch_of())
    parts = [batch_of(ROWS[p], PICTURES[p], first=p.start) for p in (slice(0, 2), slice(2, 6))]
    assert_same_bits(full, scored(model, *parts))


def test_each_kind_is_scored_by_itself() -> None:
    model, batch = make_model(), batch_of(first=10)
    task = task_of(model)
    values = scored(model, batch)
    assert {"token_accuracy", "exact_match", "short_exact_match", "bleu", "short_bleu"} <= values.keys()
    shown = task.report_items(values, lambda row: f"id-{row}")
    assert all(isinstance(each, Captions) for each in shown)
    ids = [[row.id for row in each.rows] for each in shown if isinstance(each, Captions)]
    assert ids == [["id-10", "id-12", "id-15"], ["id-11"]]
    assert set(task.chance(values)) == {n for n in values if "/" not in n and not n.endswith("shown")}


@pytest.mark.parametrize(("every", "written"), [(0, []), (1, [0, 2, 5]), (5, [0, 5])])
def test_validation_writes_for_some_rows_and_test_for_all(every: int, written: list[int]) -> None:
    model, batch = make_model(generate_every=every), batch_of()
    task = task_of(model)
    for stage, rows in (("val", written), ("test", [0, 2, 5])):
        task.on_evaluation_start(stage)
        shown = task.report_items(scored(model, batch), str)[:1]
        assert [int(row.id) for each in shown if isinstance(each, Captions) for row in each.rows] == rows


def test_what_is_not_finite_never_scores() -> None:
    model = make_model()
    for parameter in model.tasks.parameters():
        nn.init.constant_(parameter, math.nan)
    with pytest.raises(FloatingPointError, match="language_model of chat: a logit is not finite"):
        scored(model, batch_of())


# ----------------------------------------------------------------------- training


@each_kind
def test_adapters_learn_and_start_as_the_model(kind: str) -> None:
    """With peft's default names of linear layers, including those of GPT-2, which are not torch's."""
    model = make_model(kind, lm=source_of(kind, peft=LoraConfig(r=2)))
    learning = [name for name, p in model.tasks.named_parameters() if p.requires_grad]
    assert all("lora_" in name or "connectors" in name for name in learning)
    assert sum("lora_A" in name for name in learning) == 2 * (4 if kind == "gpt2" else 7)
    loss_of(model, batch_of())[0].backward()
    assert [n for n, p in model.tasks.named_parameters() if p.requires_grad and not p.grad.any()] == []  # type: ignore[union-attr]


def test_a_frozen_model_stays_in_evaluation_mode() -> None:
    model = make_model(lm=source_of("gpt2", freeze=True)).train()
    task = task_of(model)
    assert not any(p.requires_grad for p in task.lm.parameters())
    assert not any(module.training for module in task.lm.model.modules())
    loss_of(model, batch_of())[0].backward()
    assert all(p.grad is not None and p.grad.any() for p in task.connectors.parameters())


def test_blocks_are_computed_again_to_the_same_gradients() -> None:
    results = []
    for again in (False, True):
        model = make_model(lm=source_of(checkpointing=again)).train()
        for encoder in model.encoders.values():
            encoder.eval()
        loss_of(model, batch_of())[0].backward()
        results.append(gradients(model))
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient)


def test_a_folder_is_taken_with_its_weights(tmp_path: Any) -> None:
    """Its vocabulary is smaller, and is extended by the media placeholders."""
    known = replace(KNOWN, names=KNOWN.names[:-4])
    CausalLM(source=source_of("qwen2"), known=known).model.save_pretrained(tmp_path)
    lm = CausalLM(source=source_of(name=str(tmp_path)), known=KNOWN)  # the sizes in configs/ do not apply then
    assert lm.model.config.model_type == "qwen2"
    assert lm.embed(torch.tensor([len(KNOWN.names) - 1])).shape == (1, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": None}, "are both null"),
        ({"bits": 3}, "lm.bits = 3; set it to 4, 8 or null"),
        ({"bits": 4}, "quantized weights cannot be trained"),
        ({"bits": 4, "name": "x", "config": None, "peft": LoraConfig()}, "needs bitsandbytes"),
    ],
)
def test_a_source_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source_of(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "chatt"}, r"target = chatt, .* chat"),
        ({"modalities": ["video"]}, r"modalities = video, .* image"),
        ({"known_targets": {"chat": ClassTarget(names=["a"], counts=[1])}}, r"chat contains no dialogues; .*=chat"),
        (
            {"known_targets": {"chat": replace(KNOWN, used=frozenset({"audio"}))}},
            r"contain <audio>, but modalities = \[image\]; set modalities to \[image, audio\]",
        ),
        ({"known_targets": {"chat": replace(KNOWN, places={})}}, r"set data.targets.chat.placeholders to \[image\]"),
        ({"generate_every": -1}, "generate_every = -1; set it to 0"),
        ({"pack": 0}, "pack = 0 is below 1"),
        ({"tokenize": "moses"}, "tokenize = moses is none of sacrebleu's"),
        ({"lm": source_of(freeze=9)}, "lm.freeze = 9, but CausalLM has 2 blocks"),
        ({"lm": source_of(config={"model_type": "bertt"})}, "config.model_type is bertt"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**options)


def test_what_a_step_takes_cannot_be_planned() -> None:
    with pytest.raises(ConfigError, match="mode=plan cannot estimate a language_model"):
        make_model().view(batch_of().to("meta")).predictions("answers")


def test_a_dialogue_that_is_too_long_for_the_model_is_said() -> None:
    model = make_model("gpt2", lm=source_of(config={**CONFIGS["gpt2"], "max_position_embeddings": 8}))
    with pytest.raises(ValueError, match=r"has 12 tokens, .* but the language model has 8 positions"):
        loss_of(model, batch_of())
