"""The order of the samples: a keyed permutation, so that position p of epoch e under seed s is one row.

It needs O(1) memory and no state: nothing is shuffled, so nothing has to be saved, and workers, ranks and restarts
cannot change it. Every other random draw of a sample comes from `draw_seed` of the same three numbers.
"""

_MASK = (1 << 64) - 1
_ROUNDS = 6


def mix(*numbers: int) -> int:
    """A well-mixed 64-bit number from several (the finaliser of SplitMix64, 10.1145/2714064.2660195, chained)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ (number & _MASK)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def draw_seed(seed: int, epoch: int, position: int) -> int:
    """The seed of every random draw (augmentation, choice of a caption) of one sample; 63 bits."""
    return mix(seed, 1 + epoch, position, 0xD12A) >> 1


def permuted(position: int, size: int, *, seed: int, epoch: int) -> int:
    """The row at a position of an epoch.

    A balanced Feistel network over the smallest even number of bits that holds `size`, walked until the value falls
    inside (at most four steps are expected): a bijection of 0..size-1.

    >>> sorted(permuted(p, 10, seed=0, epoch=3) for p in range(10)) == list(range(10))
    True
    """
    assert 0 <= position < size, f"position {position} of {size}"
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    value = position
    while True:
        left, right = value >> half, value & low
        for turn in range(_ROUNDS):
            left, right = right, left ^ (mix(seed, epoch, turn, right) & low)
        value = left << half | right
        if value < size:
            return value
