"""Waves of colours against plain loops over patches, pixels and waves."""

import hashlib
import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from mmtrain.layers.color_features import ColorFeatures


def reference(features: ColorFeatures, picture: Tensor) -> Tensor:
    """Map (3, H, W) to (patches, waves); an even patch size uses half the resolution."""
    size, step = features.patch_size, 2 if features.patch_size % 2 == 0 else 1
    results = []
    for top in range(0, picture.shape[1], size):
        for left in range(0, picture.shape[2], size):
            waves = []
            for direction, phase in zip(features.directions[:, :, 0, 0], features.phases, strict=True):
                values = []
                for y in range(top, top + size, step):
                    for x in range(left, left + size, step):
                        color = picture[:, y : y + step, x : x + step].mean(dim=(1, 2))
                        values.append(math.cos((direction @ color + phase).item()))
                waves.append(sum(values) / len(values))
            results.append(waves)
    return torch.tensor(results, dtype=torch.float64)


@pytest.mark.parametrize("patch_size", [2, 3, 4])
def test_values_are_those_of_a_loop(patch_size: int) -> None:
    features = ColorFeatures(num_features=5, patch_size=patch_size).double()
    pictures = torch.randn(2, 3, 2 * patch_size, 3 * patch_size, dtype=torch.float64)
    out = features(pictures)
    assert out.shape == (2, 6, 5)
    for row in range(2):
        torch.testing.assert_close(out[row], reference(features, pictures[row]), rtol=0, atol=1e-12)


def test_the_waves_are_as_fast_as_said() -> None:
    features = ColorFeatures(num_features=20000, patch_size=2, frequency=7.0)
    speed = features.directions.square().sum(dim=1).mean().sqrt().item()  # along the direction, over all three channels
    assert speed == pytest.approx(7.0, rel=0.02)
    assert features.phases.min() >= 0 and features.phases.max() <= 2 * math.pi


def test_near_colors_differ_more_than_in_a_linear_map() -> None:
    """For the waves, a tenth of the distance from black (-1) to white (1) is most of the distance."""
    features = ColorFeatures(num_features=512, patch_size=4)

    def seen(level: float) -> Tensor:
        return features(torch.full((1, 3, 4, 4), level))[0, 0]

    near, far = (seen(-1.0) - seen(-0.8)).norm(), (seen(-1.0) - seen(1.0)).norm()
    assert near > 0.5 * far


def test_the_same_in_every_process_and_fixed() -> None:
    torch.manual_seed(123)
    features = ColorFeatures(num_features=4, patch_size=2)
    code = (
        "import hashlib; from mmtrain.layers.color_features import ColorFeatures;"
        "f = ColorFeatures(num_features=4, patch_size=2);"
        "print(hashlib.sha256(f.directions.numpy().tobytes() + f.phases.numpy().tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    mine = hashlib.sha256(features.directions.numpy().tobytes() + features.phases.numpy().tobytes()).hexdigest()
    assert mine == other
    assert not list(features.parameters()) and set(features.state_dict()) == {"directions", "phases"}


def test_no_gradient_goes_to_the_pixels_and_the_random_state_stays() -> None:
    before = torch.random.get_rng_state()
    features = ColorFeatures(num_features=4, patch_size=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    pictures = torch.randn(1, 3, 4, 4, requires_grad=True)
    assert not features(pictures).requires_grad
