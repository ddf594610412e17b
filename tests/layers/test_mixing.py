"""Mixed images: each pixel against its formula, fractions, and which rows are mixed."""

import pytest
import torch

from mmtrain.layers.mixing import mix_pictures

ROWS = torch.tensor([True, False, True, True, True, False])


def pictures() -> torch.Tensor:
    """Return images with one constant value each."""
    return torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 10, 12).clone()


@pytest.mark.parametrize("seed", range(5))
def test_mixup_is_the_weighted_mean(seed: int) -> None:
    torch.manual_seed(seed)
    values = torch.randn(6, 3, 4, 4)
    mixed = mix_pictures(values, ROWS, mixup=0.8, cutmix=0.0)
    assert 0.0 <= mixed.share <= 1.0
    for row in range(6):
        assert ROWS[mixed.partner[row]] == ROWS[row]
        expected = mixed.share * values[row] + (1 - mixed.share) * values[mixed.partner[row]]
        torch.testing.assert_close(mixed.values[row], expected if ROWS[row] else values[row])
        assert ROWS[row] or mixed.partner[row] == row


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_puts_a_box_of_the_other_and_says_how_much_is_left(seed: int) -> None:
    torch.manual_seed(seed)
    mixed = mix_pictures(pictures(), ROWS, mixup=0.0, cutmix=1.0)
    for row in range(6):
        own, other = mixed.values[row, 0] == row, mixed.values[row, 0] == mixed.partner[row]
        assert (own | other).all()
        assert torch.equal(mixed.values[row, 0], mixed.values[row, 1])
        if mixed.partner[row] != row:
            assert own.float().mean().item() == pytest.approx(mixed.share)
            y, x = other.nonzero().unbind(1)
            assert len(y) == (0 if not len(y) else int((y.max() - y.min() + 1) * (x.max() - x.min() + 1)))


def test_both_kinds_come_and_the_state_of_the_step_says_which() -> None:
    kinds, again = [], []
    for result in (kinds, again):
        for seed in range(40):
            torch.manual_seed(seed)
            mixed = mix_pictures(pictures(), torch.ones(6, dtype=torch.bool), mixup=1.0, cutmix=1.0)
            result.append(mixed.values)
    assert all(torch.equal(a, b) for a, b in zip(kinds, again, strict=True))
    full = [bool((values == values.round()).all()) for values in kinds]
    assert 8 < sum(full) < 32


def test_a_row_alone_stays_as_it_is() -> None:
    values = pictures()
    alone = torch.arange(6) == 2
    assert torch.equal(mix_pictures(values, alone, mixup=1.0, cutmix=0.0).values, values)
    assert torch.equal(mix_pictures(values, torch.zeros(6, dtype=torch.bool), mixup=0.0, cutmix=1.0).values, values)
