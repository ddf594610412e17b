"""The MLP connector against its formula."""

from mmtrain.fusion.connectors.mlp import MLPConnector
from tests.fusion.connectors.plain import DIM, IN_DIM, assert_is
from tests.plain_attention import mlp


def test_values_and_gradients_are_those_of_the_formula() -> None:
    connector = MLPConnector(in_dim=IN_DIM, dim=DIM)
    assert_is(connector, lambda x: mlp(x, connector.mlp), [5, 2, 0, 1])
