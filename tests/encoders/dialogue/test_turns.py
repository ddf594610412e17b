"""Dialogues turn by turn: single turns, turns in context, and the words of the last turn."""

import pytest
import torch
from torch import Tensor, nn

from mmtrain.encoders.dialogue.turns import CONTEXTS, Turns
from mmtrain.encoders.text.transformer import TextTransformer

DIM, LENGTH = 8, 5
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]]).bool()


def make_encoder(context: str) -> Turns:
    text = TextTransformer(
        vocab_size=20, max_length=LENGTH, dim=6, depth=1, num_heads=2, mlp_ratio=2.0, dropout=0.0, layer_scale=None
    )
    encoder = Turns(
        text=text,
        max_turns=4,
        max_speakers=3,
        dim=DIM,
        context=context,
        depth=1,
        num_heads=2,
        mlp_ratio=2.0,
        dropout=0.0,
    ).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder


def dialogues() -> Tensor:
    values = torch.randint(1, 20, (4, 3, 1 + LENGTH), generator=torch.Generator().manual_seed(0))
    values[:, :, 0] = torch.tensor([2, 1, 0])
    values[0, 1, 3:] = -1
    values[0, 2, 5:] = -1
    values[2, 0, 1:] = -1  # a turn without words
    return values


def plainly(encoder: Turns, dialogue: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens of one dialogue (N, 1 + L): turns, and words of the last turn."""
    turns, words = [], torch.empty(0, DIM)
    for place, turn in enumerate(dialogue):
        ids = turn[1:][turn[1:] >= 0]
        mean = torch.zeros(6, dtype=torch.double)
        words = torch.zeros(0, DIM, dtype=torch.double)
        if len(ids):
            said = encoder.text(ids.unsqueeze(0), torch.ones(1, len(ids)).bool()).tokens[0]
            mean, words = said.mean(dim=0), encoder.proj(said) + encoder.kinds[1]
        ago = len(dialogue) - 1 - place
        turns.append(encoder.proj(mean) + encoder.speakers[turn[0]] + encoder.places[ago])
    x = torch.stack(turns).unsqueeze(0)
    if encoder.rnn is not None:
        gru = nn.GRU(DIM, DIM, batch_first=True).double()
        gru.load_state_dict(encoder.rnn.rnn.state_dict())
        x = x + gru(x)[0]
    for block in encoder.blocks:
        x = block(x)
    return encoder.norm(x)[0] + encoder.kinds[0], words


@pytest.mark.parametrize("context", CONTEXTS)
def test_values_are_those_of_each_dialogue_by_itself(context: str) -> None:
    encoder, values = make_encoder(context), dialogues()
    tokens, mask = encoder(values, MASK)
    assert tokens.shape == (4, 3 + LENGTH, DIM) and torch.equal(mask[:, :3], MASK)
    for row, length in enumerate([3, 1, 2]):
        turns, words = plainly(encoder, values[row, :length])
        torch.testing.assert_close(tokens[row, :length], turns, rtol=0, atol=1e-11)
        assert mask[row, 3:].sum() == len(words)
        torch.testing.assert_close(tokens[row, 3:][mask[row, 3:]], words, rtol=0, atol=1e-11)
    assert not mask[3].any()


@pytest.mark.parametrize("context", CONTEXTS)
def test_what_is_not_there_changes_nothing_and_everything_learns(context: str) -> None:
    encoder, values = make_encoder(context), dialogues()
    tokens, mask = encoder(values, MASK)
    other = torch.where(MASK.unsqueeze(-1), values, 7)
    again, _ = encoder(other, MASK)
    assert torch.equal(tokens[mask], again[mask])
    tokens[mask].square().sum().backward()
    unused = {name for name, p in encoder.named_parameters() if p.grad is None}
    assert unused == set()


def test_an_earlier_turn_matters_only_in_a_context() -> None:
    values = dialogues()
    changed = values.clone()
    changed[0, 0, 1:] = 3
    for context in CONTEXTS:
        encoder = make_encoder(context)
        one, other = encoder(values, MASK).tokens[0, 2], encoder(changed, MASK).tokens[0, 2]
        assert torch.allclose(one, other) == (context == "none")


def test_what_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="context = lstm; set it to none, gru or transformer"):
        make_encoder("lstm")
    with pytest.raises(ValueError, match="a dialogue of 5 turns, but max_turns = 4"):
        make_encoder("gru")(torch.zeros(1, 5, 1 + LENGTH).long(), torch.ones(1, 5).bool())
