"""Models of other libraries: parts that do not affect the tokens are found and removed, and blocks are listed."""

import torch
from torch import Tensor, nn

from mmtrain.layers.foreign_model import drop, stem_and_blocks, unused_parameters


class Foreign(nn.Module):
    """Returns tokens, and an unused pooled token, like models of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Linear(3, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.mask_token = nn.Parameter(torch.zeros(4))
        self.encoder = nn.Module()
        self.encoder.before = nn.LayerNorm(4)
        self.encoder.layer = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.norm = nn.LayerNorm(4)
        self.head = nn.ModuleDict({"pool": nn.Linear(4, 4), "out": nn.Linear(4, 4)})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.encoder.before(self.embeddings(x) * self.scale)
        for layer in self.encoder.layer:
            x = layer(x)
        x = self.norm(x)
        pooled = self.head["pool"](x.mean(dim=1)) if "pool" in dict(self.head.named_children()) else x
        return x, pooled


def test_what_has_no_part_in_the_tokens_is_found_and_taken_out() -> None:
    net, x = Foreign(), torch.randn(2, 5, 3)
    expected, _ = net(x)
    names = unused_parameters(net, expected)
    assert names == ["mask_token", "head"]
    assert unused_parameters(net.to("meta"), net(x.to("meta"))[0]) == names
    net = Foreign()
    before, _ = net(x)
    drop(net, ["mask_token", "head.pool", "head.out"])
    tokens, pooled = net(x)
    assert torch.equal(tokens, before) and torch.equal(pooled, tokens.mean(dim=1))  # the identity returns its input
    assert not [n for n, _ in net.named_parameters() if n.startswith(("mask", "head"))]


def test_layers_are_what_comes_before_the_list_and_each_of_the_list() -> None:
    net = Foreign()
    stem, *blocks = net_layers = stem_and_blocks(net)
    assert len(net_layers) == 4
    assert [id(part) for part in stem] == [
        id(p) for p in (net.scale, net.mask_token, net.embeddings, net.encoder.before)
    ]
    assert blocks == [(layer,) for layer in net.encoder.layer]
