"""The Q-Former as a connector against its formula."""

import pytest
from torch import Tensor

from mmtrain.fusion.connectors.q_former import QFormerConnector
from tests.fusion.connectors.plain import DIM, IN_DIM, assert_is
from tests.plain_attention import attention, feed, linear, norm, read


def make(num_queries: int = 3, depth: int = 3, cross_attention_frequency: int = 2) -> QFormerConnector:
    return QFormerConnector(
        in_dim=IN_DIM,
        dim=DIM,
        num_queries=num_queries,
        depth=depth,
        cross_attention_frequency=cross_attention_frequency,
        num_heads=2,
        mlp_ratio=2.0,
        dropout=0.0,
    )


@pytest.mark.parametrize(("depth", "cross_attention_frequency"), [(1, 1), (2, 1), (3, 2)])
def test_values_and_gradients_are_those_of_the_formula(depth: int, cross_attention_frequency: int) -> None:
    connector = make(depth=depth, cross_attention_frequency=cross_attention_frequency)

    def plain(x: Tensor) -> Tensor:
        q: Tensor = connector.queries
        for number, layer in enumerate(connector.layers):
            normed = norm(q, layer.norm)
            q = q + attention(normed, normed, layer.attn)[0]
            if number % cross_attention_frequency == 0:
                q = q + read(q, x, layer.read)[0]
            q = q + feed(q, layer.feed)
        return linear(norm(q, connector.norm), connector.proj)

    assert_is(connector, plain, [3, 3, 0, 3])


@pytest.mark.parametrize("name", ["num_queries", "depth", "cross_attention_frequency"])
def test_none_of_them_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} = 0; set {name} to 1 or more"):
        make(**{name: 0})
