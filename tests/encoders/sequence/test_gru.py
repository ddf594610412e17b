"""The sequence GRU against torch's, one sequence at a time."""

import pytest
import torch
from torch import nn

from mmtrain.encoders.sequence.gru import SequenceGRU

LENGTHS = [6, 4, 1]


@pytest.mark.parametrize(("bidirectional", "width"), [(False, 4), (True, 2)])
def test_values_are_those_of_torch(bidirectional: bool, width: int) -> None:
    encoder = SequenceGRU(in_dim=3, dim=4, depth=2, bidirectional=bidirectional, dropout=0.0).double()
    theirs = nn.GRU(3, width, 2, bidirectional=bidirectional).double()
    theirs.load_state_dict(encoder.gru.rnn.state_dict())
    values = torch.randn(3, 6, 3, dtype=torch.float64)
    tokens, mask = encoder(values, torch.arange(6) < torch.tensor(LENGTHS)[:, None])
    assert mask.sum(dim=1).tolist() == LENGTHS
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(tokens[row, :length], theirs(values[row, :length])[0], rtol=0, atol=1e-12)


def test_only_from_both_ends_does_the_first_frame_know_the_last() -> None:
    for bidirectional in (False, True):
        encoder = SequenceGRU(in_dim=3, dim=4, depth=1, bidirectional=bidirectional, dropout=0.0)
        values = torch.randn(1, 5, 3, requires_grad=True)
        encoder(values, None).tokens[0, 0].sum().backward()
        assert bool(values.grad[0, 4].any()) == bidirectional


def test_an_odd_width_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="dim = 5 cannot be halved over two directions; set dim to 6"):
        SequenceGRU(in_dim=3, dim=5, depth=1, bidirectional=True, dropout=0.0)
