"""Types of constructor arguments with their range, such as `PositiveInt`.

The checks of a configuration read them from the source; see `mmtrain.config.constraints`.
"""

from typing import Annotated, TypeVar

from annotated_types import Ge, Gt, Le, Lt

T = TypeVar("T")
FLATTENED = "flattened"
# `head: Flattened[HeadSpec]`: the configuration has the arguments of HeadSpec next to those of the component.
# `mmtrain.config.instantiate.construct` makes the object.
Flattened = Annotated[T, FLATTENED]

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
PositiveFraction = Annotated[float, Gt(0), Le(1)]
ProperFraction = Annotated[float, Ge(0), Lt(1)]  # below 1

# The upper limits exclude mistakes such as one zero too many; no model of today is near them.
Size = Annotated[int, Ge(1), Le(2**20)]  # of an axis of a tensor: a width, a number of heads, of tokens, of pixels
VocabSize = Annotated[int, Ge(6), Le(2**24)]  # five tokens are special
TextLength = Annotated[int, Ge(3), Le(2**20)]  # in tokens; two of them mark the beginning and the end
Depth = Annotated[int, Ge(0), Le(1000)]  # a number of layers
PositiveDepth = Annotated[int, Ge(1), Le(1000)]
WidthRatio = Annotated[float, Gt(0), Le(1000)]  # of a hidden layer to the width of its input
Seconds = Annotated[float, Gt(0), Le(86400)]  # of one recording: up to a day
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
