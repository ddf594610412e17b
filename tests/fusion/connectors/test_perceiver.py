"""The resampler against its formula."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.connectors.perceiver import PerceiverConnector
from tests.fusion.connectors.plain import DIM, IN_DIM, assert_is
from tests.plain_attention import feed, linear, norm, read


def make(num_latents: int = 3, depth: int = 2) -> PerceiverConnector:
    return PerceiverConnector(
        in_dim=IN_DIM, dim=DIM, num_latents=num_latents, depth=depth, num_heads=2, mlp_ratio=2.0, dropout=0.0
    )


def test_values_and_gradients_are_those_of_the_formula() -> None:
    connector = make()

    def plain(x: Tensor) -> Tensor:
        z: Tensor = connector.latents
        for layer in connector.layers:
            z = z + read(z, torch.cat([x, z]), layer.read)[0]
            z = z + feed(z, layer.feed)
        return linear(norm(z, connector.norm), connector.proj)

    assert_is(connector, plain, [3, 3, 0, 3])


@pytest.mark.parametrize(("num_latents", "depth", "name"), [(0, 1, "num_latents"), (1, 0, "depth")])
def test_no_latents_and_no_layers_are_refused(num_latents: int, depth: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} = 0; set {name} to 1 or more"):
        make(num_latents, depth)
