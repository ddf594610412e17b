"""Generation: the loss against loops over tokens, counts, and for which rows sentences are generated."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmtrain.layers.decoder import DecoderShape, Decoding
from mmtrain.model import MultimodalModel
from mmtrain.tasks.generation import Generation, sentence
from mmtrain.types import Batch, Caption, Captions, ClassTarget, Padded, TokenTarget
from tests.batches import DIM, assert_same_bits, gradients, make_batch, make_encoders, make_fusion
from tests.fusions import FUSED_DIM

NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "run", "##s", "."]
KNOWN = TokenTarget(names=NAMES, max_length=7, pad=0, start=2, end=3)
# for six rows; the third is unlabelled
SENTENCES: list[list[int]] = [[2, 5, 6, 3], [2, 6, 7, 8, 9, 3], [], [2, 3], [2, 5, 1, 3], [2, 5, 6, 7, 8, 9, 3]]
IMAGE, TEXT = [1, 2, 3, 0, 0, 6], [1, 0, 3, 4, 0, 6]  # row 3 has no image, row 4 is empty
COUNTED = {"fused": [0, 1, 3, 5], "image": [0, 1, 5]}
both_reads = pytest.mark.parametrize("reads", ["fused", "image"])


def decoding_of(method: str = "greedy", **options: Any) -> Decoding:
    plain = {"num_beams": 3, "max_new_tokens": None, "top_p": 1.0, "temperature": 1.0, "length_penalty": 1.0}
    return Decoding(method=method, **{**plain, "no_repeat_ngram_size": 0, "seed": 0, **options})


def make_task(reads: str = "fused", **options: Any) -> Generation:
    shape = DecoderShape(dim=8, depth=1, num_heads=2, mlp_ratio=2.0, dropout=0.0, pretrained=None)
    facts = {"dims": {"fused": FUSED_DIM, "image": DIM}, "known_targets": {"caption": KNOWN}, "target": "caption"}
    knobs = {"weight": 1.0, "label_smoothing": 0.0, "decoder": shape, "decoding": decoding_of(), "generate_every": 1}
    return Generation(input=reads, **{**facts, **knobs, "tokenize": "13a", **options})


def make_model(reads: str = "fused", **options: Any) -> MultimodalModel:
    """Return a float64 model in evaluation mode, with weights that generate different sentences."""
    encoders = make_encoders()
    if reads == "image":
        del encoders["text"]
    fusion = make_fusion("cross_attn", dict.fromkeys(encoders, DIM)) if reads == "fused" else None
    model = MultimodalModel(encoders=encoders, fusion=fusion, tasks={"captioning": make_task(reads, **options)})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    decoder = task_of(model).decoder
    nn.init.normal_(decoder.model.transformer.wpe.weight, std=2.0)  # otherwise a word repeats itself
    for parameter in (*decoder.bridge.parameters(), *decoder.model.transformer.h[0].crossattention.parameters()):
        nn.init.normal_(parameter)
    return model.double().eval()


def batch_of(
    image: list[int] = IMAGE, text: list[int] = TEXT, sentences: list[list[int]] = SENTENCES, first: int = 0
) -> Batch:
    length = max([len(s) for s in sentences] + [1])
    ids = torch.tensor([s + [KNOWN.pad] * (length - len(s)) for s in sentences])
    return replace(
        make_batch(image, text, first=first),
        targets={"caption": ids},
        labelled={"caption": torch.tensor([bool(s) for s in sentences])},
        references={"caption": [[sentence(s, KNOWN)] if s else [] for s in sentences]},
    )


def loss_of(model: MultimodalModel, batch: Batch) -> tuple[Tensor, Tensor]:
    return model.losses(batch)["captioning"]


def task_of(model: MultimodalModel) -> Generation:
    task = model.tasks["captioning"]
    assert isinstance(task, Generation)
    return task


def scored(model: MultimodalModel, *batches: Batch) -> dict[str, Tensor]:
    task = task_of(model)
    metrics = task.metrics()
    for batch in batches:
        task.update(metrics, model.view(batch).predictions("captioning"), batch)
    return metrics.compute()


def test_scores_compare_with_the_references_and_not_with_the_tokens() -> None:
    """Any of several references counts, and [UNK] does not match a reference with unknown words."""
    model, batch = make_model(), batch_of()
    task = task_of(model)
    view = model.view(batch).predictions("captioning")
    rows = task.write(view, batch, torch.arange(len(SENTENCES)))
    other = [["zebra", rows[i]] if i != 4 else ["a zebra"] for i in range(len(SENTENCES))]
    metrics = task.metrics()
    task.update(metrics, view, replace(batch, references={"caption": other}))
    assert metrics.compute()["exact_match"] == 1  # the fifth row has no modality to read


# ------------------------------------------------------------------------ the loss


@both_reads
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_loss_is_a_loop_over_tokens(reads: str, label_smoothing: float) -> None:
    """One row and one token at a time, each only from the tokens before it."""
    model, batch = make_model(reads, label_smoothing=label_smoothing), batch_of()
    task = task_of(model)
    total, count = loss_of(model, batch)
    total.backward()
    result = gradients(model)
    model.zero_grad()
    expected, number = torch.zeros((), dtype=torch.float64), 0
    for row in COUNTED[reads]:
        read = model.view(batch).features(reads).take(torch.tensor([row]))
        ids = SENTENCES[row]
        for place in range(1, len(ids)):
            logits = task.decoder(torch.tensor([ids[:place]]), read)[0, -1]
            log_probability = logits.log_softmax(dim=0)
            target = torch.full((len(NAMES),), label_smoothing / len(NAMES), dtype=torch.float64)
            target[ids[place]] += 1.0 - label_smoothing
            expected, number = expected - (target * log_probability).sum(), number + 1
    assert count == number == task.count(batch)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    expected.backward()
    for name, gradient in gradients(model).items():  # the library's loss is computed in float32
        torch.testing.assert_close(
            result[name], gradient, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: name + text
        )


@both_reads
def test_cutting_a_batch_gives_the_same_sum(reads: str) -> None:
    model = make_model(reads)
    full = loss_of(model, batch_of())
    for cut in (1, 2, 4, 5):
        parts = (slice(None, cut), slice(cut, None))
        sums = [loss_of(model, batch_of(IMAGE[p], TEXT[p], SENTENCES[p])) for p in parts]
        torch.testing.assert_close(sums[0][0] + sums[1][0], full[0])
        assert sums[0][1] + sums[1][1] == full[1]


def test_a_row_does_not_look_at_the_others() -> None:
    model, batch = make_model(), batch_of()
    together = losses_by_row(model, batch)
    for row in COUNTED["fused"]:
        alone, _ = loss_of(model, batch_of([IMAGE[row]], [TEXT[row]], [SENTENCES[row]]))
        assert alone.item() == pytest.approx(together[row], rel=1e-6)


def losses_by_row(model: MultimodalModel, batch: Batch) -> list[float]:
    """Return the loss of each row in the complete batch, with all others unlabelled."""
    losses = []
    for row in range(len(batch)):
        only = torch.arange(len(batch)) == row
        part = replace(batch, labelled={"caption": batch.labelled["caption"] & only})
        losses.append(loss_of(model, part)[0].item())
    return losses


@both_reads
@pytest.mark.parametrize("garbage", [math.nan, 1e30])
def test_what_a_row_lacks_changes_no_bit(reads: str, garbage: float) -> None:
    model, batch = make_model(reads), batch_of()
    text = batch.inputs["text"]
    assert text.mask is not None
    counts = torch.tensor([row in COUNTED[reads] for row in range(6)]).unsqueeze(1)
    dirty = replace(
        batch,
        inputs={
            "image": Padded(
                batch.inputs["image"].values.masked_fill(~batch.present["image"][:, None, None, None], garbage), None
            ),
            "text": Padded(text.values.masked_fill(~text.mask, 10**9), text.mask),
        },
        targets={"caption": batch.targets["caption"].masked_fill(~counts, 10**9)},
    )
    results = []
    for rows in (batch, dirty):
        model.zero_grad()
        total, count = loss_of(model, rows)
        total.backward()
        values = scored(model, rows)
        results.append({"loss": total.detach(), "count": count, **gradients(model), **values})
    assert task_of(model).count(dirty) == results[0]["count"]
    assert_same_bits(*results)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "sentences", [[[], []], [[2, 5, 3], [2, 5, 6, 3]]], ids=["nothing is labelled", "nothing to read"]
)
def test_without_a_row_that_counts_every_gradient_is_zero(sentences: list[list[int]], training: bool) -> None:
    model = make_model().train(training)
    batch = batch_of([1, 2] if not sentences[0] else [0, 0], [0, 0], sentences)
    total, count = loss_of(model, batch)
    assert (total.item(), count.item(), task_of(model).count(batch).item()) == (0.0, 0, 0)
    total.backward()
    assert not any(p.grad is None or p.grad.any() for p in model.tasks.parameters())
    assert scored(model.eval(), batch) == {}


def test_every_parameter_learns() -> None:
    model = make_model()
    loss_of(model, batch_of())[0].backward()
    assert [name for name, gradient in gradients(model.tasks).items() if not gradient.any()] == []


def test_a_tokenizer_that_pads_and_starts_with_its_end_mark() -> None:
    """GPT-2's tokenizer has one token for all three."""
    known = TokenTarget(names=["a", "dog", "s", "[E]"], max_length=6, pad=3, start=3, end=3)
    task = make_task(known_targets={"caption": known})
    ids = torch.tensor([[3, 0, 1, 3, 3, 3], [3, 3, 3, 3, 3, 3], [3, 1, 1, 1, 1, 3]])
    batch = replace(make_batch([1, 2, 3], [1, 2, 3]), targets={"caption": ids}, labelled={"caption": ids[:, 0] == 3})
    assert task.count(batch) == 3 + 1 + 5
    assert [sentence(row, known) for row in ids.tolist()] == ["a dog", "", "dog dog dog dog"]
    assert sentence([3, 3], known) == ""


# --------------------------------------------------------------------- generated sentences


def test_sentences_of_labelled_rows_are_scored_in_test() -> None:
    model = make_model()
    task, batch = task_of(model), batch_of(first=10)
    values = scored(model, batch)
    (captions,) = task.report_items(values, lambda row: f"id-{row}")
    assert isinstance(captions, Captions) and captions.task == "caption"
    predictions = task.rows(model.view(batch).predictions("captioning"), batch)
    assert [bool(row) for row in predictions] == [True, True, True, True, False, True]  # independent of labels
    right = {0: "a dog", 1: "dog runs.", 3: "", 5: "a dog runs."}
    assert captions.rows == [
        Caption(f"id-{10 + row}", predictions[row]["caption"], [text]) for row, text in right.items()
    ]
    assert len({row["caption"] for row in predictions if row}) > 1
    exact = sum(predictions[row]["caption"] == text for row, text in right.items()) / 4
    assert values["exact_match"].item() == exact


def test_what_is_right_by_token_is_the_likeliest() -> None:
    model, batch = make_model(), batch_of()
    logits = model.view(batch).predictions("captioning").logits
    pairs = [
        (int(logits[row, place].argmax()), SENTENCES[row][place + 1])
        for row in COUNTED["fused"]
        for place in range(len(SENTENCES[row]) - 1)
    ]
    values = scored(model, batch)
    assert values["token_accuracy"].item() == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    wanted = [b for _, b in pairs]
    chance = task_of(model).chance(values)
    assert chance["token_accuracy"] == pytest.approx(max(map(wanted.count, wanted)) / len(wanted))
    assert chance["exact_match"] == 0.25
    assert set(chance) == {name for name in values if "/" not in name and name != "shown"}


@pytest.mark.parametrize(("every", "written"), [(0, []), (1, [0, 1, 3, 5]), (3, [0, 3]), (4, [0]), (7, [0])])
def test_validation_writes_for_some_rows_and_test_for_all(every: int, written: list[int]) -> None:
    model, batch = make_model(generate_every=every), batch_of()
    task = task_of(model)
    shown = {}
    for stage in ("val", "test"):
        task.on_evaluation_start(stage)
        values = scored(model, batch)
        assert "token_accuracy" in values
        shown[stage] = [int(row.id) for e in task.report_items(values, str) for row in e.rows]
    assert shown == {"val": written, "test": [0, 1, 3, 5]}


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_cutting_a_batch_writes_the_same_sentences(method: str) -> None:
    model = make_model(decoding=decoding_of(method))
    full = scored(model, batch_of())
    parts = [batch_of(IMAGE[p], TEXT[p], SENTENCES[p], first=p.start) for p in (slice(0, 2), slice(2, 6))]
    again = scored(model, *parts)
    assert_same_bits(full, again)
    assert_same_bits(full, scored(model, *reversed(parts)))


def test_words_stand_together_and_marks_are_left_out() -> None:
    assert sentence([2, 5, 6, 7, 8, 9, 3, 5, 5], KNOWN) == "a dog runs."
    assert sentence([5, 0, 1, 3], KNOWN) == "a [UNK]"  # references may contain [UNK], generated sentences never do
    assert sentence([], KNOWN) == ""


# -------------------------------------------------------------------------- errors


@pytest.mark.parametrize("garbage", [math.nan, math.inf])
def test_what_is_not_finite_never_scores(garbage: float) -> None:
    model = make_model()
    for parameter in model.tasks.parameters():
        nn.init.constant_(parameter, garbage)
    with pytest.raises(FloatingPointError, match="generation of caption: a logit is not finite"):
        scored(model, batch_of())


def test_what_does_not_count_may_be_anything() -> None:
    model, batch = make_model(), batch_of()
    predictions = model.view(batch).predictions("captioning")
    counts = torch.tensor([row in COUNTED["fused"] for row in range(6)])
    dirty = predictions._replace(logits=predictions.logits.masked_fill(~counts[:, None, None], math.nan))
    task = task_of(model)
    results = []
    for said in (predictions, dirty):
        metrics = task.metrics()
        task.update(metrics, said, batch)
        results.append({"loss": task.loss(said, batch)[0], **metrics.compute()})
    assert_same_bits(*results)


class Late(nn.Module):
    """A late fusion."""

    modalities = ("image", "text")
    combine_method = "product"


def test_decisions_are_refused_but_a_modality_is_not() -> None:
    with pytest.raises(ValueError, match="choose another fusion, such as fusion=cross_attn"):
        make_task(decides=Late())
    make_task("image", decides=Late())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "captoin"}, r"target = captoin, .* caption"),
        ({"reads": "audio"}, r"input = audio, .* fused, image"),
        (
            {"known_targets": {"caption": ClassTarget(names=["a"], counts=[1])}},
            r"caption contains no sentences; .*=text",
        ),
        ({"decoding": decoding_of(max_new_tokens=9)}, r"max_new_tokens = 9, .* 6 tokens; set it to 6, or .* to 10"),
        ({"generate_every": -1}, r"generate_every = -1; set it to 0"),
        ({"tokenize": "moses"}, r"tokenize = moses is none of sacrebleu's"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**options)
