"""The packed GRU against torch's own, row by row and without padding."""

import pytest
import torch
from torch import nn

from mmtrain.layers.packed_gru import PackedGRU
from mmtrain.types import Features
from tests.batches import gradients

MASKS = {
    "padding behind": [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]],
    "gaps": [[0, 1, 1, 0, 1], [0, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]],
}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("masks", MASKS)
def test_values_and_gradients_are_those_of_torch(bidirectional: bool, masks: str) -> None:
    layer = PackedGRU(in_dim=3, dim=4, depth=2, bidirectional=bidirectional, dropout=0.0).double()
    theirs = nn.GRU(3, 2 if bidirectional else 4, 2, batch_first=True, bidirectional=bidirectional).double()
    theirs.load_state_dict(layer.gru.state_dict())
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
    mine, reference = gradients(layer.gru), gradients(theirs)
    for name in mine:
        torch.testing.assert_close(mine[name], reference[name], rtol=0, atol=1e-12)


def test_dropout_is_between_layers_only() -> None:
    features = Features(torch.randn(2, 5, 3), torch.ones(2, 5, dtype=torch.bool))
    for depth, same in ((1, True), (2, False)):
        layer = PackedGRU(in_dim=3, dim=4, depth=depth, bidirectional=False, dropout=0.5)
        assert torch.equal(layer(features).tokens, layer(features).tokens) == same


def test_what_cannot_be_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match=r"dim = 5 cannot be halved .* set dim to 6, or bidirectional to false"):
        PackedGRU(in_dim=3, dim=5, depth=1, bidirectional=True, dropout=0.0)
    with pytest.raises(ValueError, match="depth = 0 is no layer; set it to at least 1"):
        PackedGRU(in_dim=3, dim=4, depth=0, bidirectional=True, dropout=0.0)
