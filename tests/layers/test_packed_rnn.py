"""The packed GRU and LSTM against torch's own, row by row and without padding."""

import pytest
import torch
from torch import nn

from mmtrain.layers.packed_rnn import PackedRNN
from mmtrain.types import Features
from tests.batches import gradients

MASKS = {
    "padding behind": [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]],
    "gaps": [[0, 1, 1, 0, 1], [0, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]],
}
TORCH = {"gru": nn.GRU, "lstm": nn.LSTM}
each_cell = pytest.mark.parametrize("cell", TORCH)


@each_cell
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("masks", MASKS)
def test_values_and_gradients_are_those_of_torch(cell: str, bidirectional: bool, masks: str) -> None:
    layer = PackedRNN(cell=cell, in_dim=3, dim=4, depth=2, bidirectional=bidirectional, dropout=0.0).double()
    theirs = TORCH[cell](3, 2 if bidirectional else 4, 2, batch_first=True, bidirectional=bidirectional).double()
    theirs.load_state_dict(layer.rnn.state_dict())
    mask = torch.tensor(MASKS[masks]).bool()
    tokens = torch.randn(4, 5, 3, dtype=torch.float64)
    out = layer(Features(tokens, mask))
    weight = torch.randn_like(out.tokens)
    assert torch.equal(out.mask, mask) and not out.tokens[~mask].any()
    total = tokens.new_zeros(())
    for row in range(4):
        if mask[row].any():
            expected, _ = theirs(tokens[row, mask[row]].unsqueeze(0))
            torch.testing.assert_close(out.tokens[row, mask[row]], expected[0], rtol=0, atol=1e-12)
            total = total + (expected[0] * weight[row, mask[row]]).sum()
    total.backward()
    (out.tokens * weight).sum().backward()
    mine, reference = gradients(layer.rnn), gradients(theirs)
    for name in mine:
        torch.testing.assert_close(mine[name], reference[name], rtol=0, atol=1e-12)


@each_cell
def test_dropout_is_between_layers_only(cell: str) -> None:
    features = Features(torch.randn(2, 5, 3), torch.ones(2, 5, dtype=torch.bool))
    for depth, same in ((1, True), (2, False)):
        layer = PackedRNN(cell=cell, in_dim=3, dim=4, depth=depth, bidirectional=False, dropout=0.5)
        assert torch.equal(layer(features).tokens, layer(features).tokens) == same


@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_hold_every_parameter_once(bidirectional: bool) -> None:
    layer = PackedRNN(cell="gru", in_dim=3, dim=4, depth=11, bidirectional=bidirectional, dropout=0.0)
    names = {id(p): name for name, p in layer.rnn.named_parameters()}
    results = [[names.pop(id(p)) for p in parameters] for parameters in layer.layers()]
    assert names == {} and len(results) == 11
    for depth, held in enumerate(results):
        assert {name.removesuffix("_reverse").rpartition("_l")[2] for name in held} == {str(depth)}


def test_what_cannot_be_is_refused_with_advice() -> None:
    sizes = {"in_dim": 3, "dropout": 0.0, "bidirectional": True}
    with pytest.raises(ValueError, match=r"dim = 5 cannot be halved .* set dim to 6, or bidirectional to false"):
        PackedRNN(cell="gru", dim=5, depth=1, **sizes)
    with pytest.raises(ValueError, match="depth = 0 is below 1; set it to at least 1"):
        PackedRNN(cell="lstm", dim=4, depth=0, **sizes)
    with pytest.raises(ValueError, match="cell = rnn; set it to gru or lstm"):
        PackedRNN(cell="rnn", dim=4, depth=1, **sizes)
