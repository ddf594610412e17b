"""Gated cross-attention in a language model: against loops, closed gates, packing, beams."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmtrain.fusion.connectors.gated_cross_attn import GatedCrossAttnConnector
from mmtrain.layers.splice import Media, lay_out, media_context, splice
from mmtrain.model import MultimodalModel
from tests.batches import assert_same_bits, gradients
from tests.dialogues import CONFIGS, IMAGE, PICTURES, ROWS, batch_of, decoding_of, make_model
from tests.fusion.connectors.plain import DIM, IN_DIM, assert_is
from tests.plain_attention import linear

each_kind = pytest.mark.parametrize("kind", CONFIGS)


def connector_of(every: int = 1) -> Any:
    return partial(GatedCrossAttnConnector, cross_attn_every_n_layers=every, num_heads=2, mlp_ratio=2.0, dropout=0.0)


def gated(kind: str = "llama", every: int = 1, **options: Any) -> MultimodalModel:
    return make_model(kind, connector=connector_of(every), **options)


def test_the_projection_is_that_of_the_formula() -> None:
    connector = connector_of()(in_dim=IN_DIM, dim=DIM)
    assert_is(connector, lambda x: linear(x, connector.proj), [5, 2, 0, 1])


def loss_of(model: MultimodalModel, **parts: Any) -> tuple[Tensor, Tensor]:
    return model.losses(batch_of(**parts))["answers"]


@each_kind
def test_every_parameter_learns_and_packing_changes_nothing(kind: str) -> None:
    results = []
    for pack in (None, 14, 1000):
        model = gated(kind, pack=pack)
        total, _ = loss_of(model)
        total.backward()
        results.append({"loss": total.detach(), **gradients(model)})
        assert [name for name, gradient in gradients(model.tasks).items() if not gradient.any()] == []
    for other in results[1:]:
        for name, value in other.items():
            torch.testing.assert_close(value, results[0][name], rtol=1e-5, atol=1e-6, msg=lambda t, n=name: f"{n}: {t}")


@each_kind
def test_behind_closed_gates_the_language_model_is_what_it_was(kind: str) -> None:
    model = gated(kind)
    readers: Any = model.tasks["answers"].readers
    for reader in readers.values():
        nn.init.zeros_(reader.read_gate)
        nn.init.zeros_(reader.feed_gate)
    losses = [loss_of(model, pictures=pictures)[0] for pictures in (PICTURES, [3, 1, 0, 5, 5, 0])]
    assert torch.equal(*losses)


def test_gates_stand_in_front_of_each_nth_block() -> None:
    readers: Any = gated(every=2).tasks["answers"].readers
    assert list(readers) == ["0"]
    with pytest.raises(ValueError, match=r"^cross_attn_every_n_layers = 0; set cross_attn_every_n_layers to 1 or more"):
        gated(every=0)


def test_a_token_reads_the_last_medium_before_it() -> None:
    """Within its own row; loops over rows, tokens and media. The second row has one media item out of two."""
    ids = [[5, IMAGE, 6, IMAGE, 7], [IMAGE, 5, 5, 5, 5], [8, 8, 8, 8, 8]]
    values = torch.stack([torch.tensor(ids), torch.zeros(3, 5, dtype=torch.long)], dim=2)
    mask = torch.ones(3, 2, 2, dtype=torch.bool)
    mask[1, 1], mask[2], mask[0, 1, 0] = False, False, False
    media = {IMAGE: Media(torch.arange(12.0).view(3, 2, 2, 1), mask)}
    wanted: list[list[set[float]]] = []
    for row in range(3):
        seen, wanted_here = -1, []
        for number in ids[row]:
            seen += number == IMAGE
            kept = [] if seen < 0 else [k for k in range(2) if mask[row, seen, k]]
            wanted_here.append({float(media[IMAGE].tokens[row, seen, k]) for k in kept})
        wanted.append(wanted_here)
    spliced = splice(
        values, torch.ones(3, 5, dtype=torch.bool), lambda i: torch.zeros(len(i), 1), media, inserted=False
    )
    assert spliced.lengths.tolist() == [5, 5, 5]
    for room in (None, 12):
        lines = lay_out(spliced, room=room)
        read = media_context(spliced, lines, media)
        lengths = spliced.lengths.tolist()
        for token, slot in enumerate(lines.slot.tolist()):
            line, column = divmod(slot, lines.width)
            results = {float(x) for x in read.tokens[line, read.mask[line, column], 0]}
            assert results == wanted[int(spliced.row[token])][token - sum(lengths[: int(spliced.row[token])])]


def test_a_picture_that_a_row_lacks_leaves_no_mark() -> None:
    model = gated()
    third = [ROWS[2]]
    without = [(ids[1:], flags[1:]) for ids, flags in third]
    losses = [loss_of(model, rows=rows, pictures=[0])[0] for rows in (third, without)]
    assert torch.equal(*losses)


@each_kind
@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_answers_are_those_of_each_row_alone(kind: str, method: str) -> None:
    model = gated(kind, decoding=decoding_of(method))

    def said(rows: slice) -> list[Any]:
        batch = batch_of(ROWS[rows], PICTURES[rows], first=rows.start)
        return model.tasks["answers"].rows(model.view(batch).predictions("answers"), batch)  # type: ignore[operator]

    assert said(slice(0, 6)) == [row for start in range(6) for row in said(slice(start, start + 1))]


def test_an_answer_is_the_likeliest_token_given_all_before() -> None:
    """One token at a time, through the forward pass of the loss, without a cache."""
    model = gated()
    task: Any = model.tasks["answers"]
    batch = batch_of()
    predictions = task.rows(model.view(batch).predictions("answers"), batch)[0]["chat"]
    ids, written = ROWS[0][0][:3], []
    while len(written) < 6 and written[-1:] != [1]:
        row = ([*ids, *written, 5], [0] * len(ids) + [1] * (len(written) + 1))
        logits = model.view(batch_of([row], PICTURES[:1])).predictions("answers").logits[-1]
        logits[task.lm.never] = -math.inf
        written.append(int(logits.argmax()))
    assert predictions == task.known.write(written)


def test_what_a_row_lacks_changes_no_bit() -> None:
    model, batch = gated(), batch_of()
    values = batch.inputs["image"].values
    results = []
    for garbage in (0.0, math.nan):
        dirty = values.masked_fill(~batch.present["image"][:, None, None, None], garbage)
        batch.inputs["image"] = batch.inputs["image"]._replace(values=dirty)
        model.zero_grad()
        total, _ = model.losses(batch)["answers"]
        total.backward()
        results.append({"loss": total.detach(), **gradients(model)})
    assert_same_bits(*results)
