"""The text GRU and LSTM against torch's, one text at a time."""

from typing import Any

import pytest
import torch
from torch import nn

from mmtrain.encoders.text.gru import TextGRU
from mmtrain.encoders.text.lstm import TextLSTM
from mmtrain.encoders.text.rnn import TextRNN

KINDS: dict[type[TextRNN], Any] = {TextGRU: nn.GRU, TextLSTM: nn.LSTM}
each = pytest.mark.parametrize("kind", KINDS)
IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [8, 0, 0, 0, 0], [0, 0, 0, 0, 0]])


@each
@pytest.mark.parametrize(("bidirectional", "width"), [(False, 4), (True, 2)])
def test_values_are_those_of_torch(kind: type[TextRNN], bidirectional: bool, width: int) -> None:
    encoder = kind(vocab_size=10, dim=4, depth=2, bidirectional=bidirectional, dropout=0.0).double()
    theirs = KINDS[kind](4, width, 2, bidirectional=bidirectional).double()
    theirs.load_state_dict(encoder.rnn.rnn.state_dict())
    tokens, mask = encoder(IDS, IDS > 0)
    assert torch.equal(mask, IDS > 0) and not tokens[~mask].any()
    for row, length in enumerate([5, 3, 1]):
        expected, _ = theirs(encoder.embed.weight[IDS[row, :length]])
        torch.testing.assert_close(tokens[row, :length], expected, rtol=0, atol=1e-12)


@each
def test_a_text_may_be_of_any_length(kind: type[TextRNN]) -> None:
    encoder = kind(vocab_size=10, dim=4, depth=1, bidirectional=True, dropout=0.0)
    assert encoder(torch.randint(0, 10, (1, 500)), None).tokens.shape == (1, 500, 4)


@each
def test_an_odd_width_is_refused_with_advice(kind: type[TextRNN]) -> None:
    with pytest.raises(ValueError, match="dim = 5 cannot be halved over two directions; set dim to 6"):
        kind(vocab_size=10, dim=5, depth=1, bidirectional=True, dropout=0.0)


@each
def test_layers_are_embeddings_and_each_depth(kind: type[TextRNN]) -> None:
    encoder = kind(vocab_size=10, dim=4, depth=3, bidirectional=True, dropout=0.0)
    first, *others = encoder.layers()
    assert first == (encoder.embed,) and [len(layer) for layer in others] == [8] * 3
    assert {id(p) for layer in others for p in layer} == {id(p) for p in encoder.rnn.parameters()}


@each
def test_the_names_in_checkpoints_begin_with_the_cell(kind: type[TextRNN]) -> None:
    encoder = kind(vocab_size=10, dim=4, depth=1, bidirectional=False, dropout=0.0)
    weights = [f"{kind.cell}.rnn.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    assert list(encoder.state_dict()) == ["embed.weight", *weights]
