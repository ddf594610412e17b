"""Every encoder with batch norm accepts a batch in which one row has the modality, for any feature map size."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtrain.encoders.image.pictures import Pictures
from mmtrain.encoders.image.resnet import ResNet
from mmtrain.encoders.image.timm import Timm
from mmtrain.encoders.image.torchvision import FAMILIES, TorchVision
from mmtrain.encoders.video.frames import Frames
from mmtrain.encoders.video.r3d import R3D
from mmtrain.layers.finetuning import Tuning, tune
from mmtrain.model import MultimodalModel
from mmtrain.types import Padded
from tests import runs
from tests.batches import assert_same_bits, gradients, make_batch
from tests.encoders.test_encoders import MAKERS
from tests.tiny import make_tables

SIDE = 32


def norms(module: nn.Module) -> list[_BatchNorm]:
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def resnet() -> nn.Module:
    return ResNet(name="resnet18", small_input=False, pretrained=None)


def frames() -> nn.Module:
    blocks = {"depth": 1, "num_heads": 2, "mlp_ratio": 2.0, "dropout": 0.0}
    return Frames(image=resnet(), num_frames=2, grid=1, dim=8, temporal="mean", **blocks)


# one model per family of torchvision; VGG has the same norms and 9 million weights
TORCHVISION = ("densenet121", "efficientnet_b0", "mobilenet_v3_small", "regnet_y_400mf")
# the smallest model per kind of timm network, with the smallest supported image size
TIMM = {"test_byobnet": 32, "test_coatnet": 160, "test_efficientnet": 32, "test_maxvit": 160, "test_resnet": 32}
ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "image/resnet": resnet,
    "image/pictures": lambda: Pictures(image=resnet()),
    "video/frames": frames,
    "video/r3d": partial(R3D, name="r3d_18", pretrained=None),
    **{
        f"image/torchvision ({name})": partial(TorchVision, name=name, pretrained=None, image_size=SIDE)
        for name in TORCHVISION
    },
    **{
        f"image/timm ({name})": partial(Timm, name=name, pretrained=None, image_size=side, drop_path=0.0)
        for name, side in TIMM.items()
    },
}


def batch_of(name: str, present: list[bool]) -> Any:
    """Videos have one frame each, so their maps shrink like those of images."""
    side = TIMM.get(name.partition("(")[2].rstrip(")"), SIDE)
    steps = (1,) if name.startswith("video/") or name == "image/pictures" else ()
    is_present = torch.tensor(present)
    values = torch.randn(len(present), *steps, 3, side, side, generator=torch.Generator().manual_seed(0))
    mask = is_present[:, None] if steps else None
    batch = make_batch([0] * len(present), [0] * len(present))
    return replace(batch, inputs={"m": Padded(values, mask)}, present={"m": is_present})


def model_of(name: str) -> MultimodalModel:
    torch.manual_seed(0)
    return MultimodalModel(encoders={"m": ENCODERS[name]()}, fusion=None, tasks={})


def run(model: MultimodalModel, batch: Any) -> dict[str, Tensor]:
    model.zero_grad()
    tokens = model.view(batch).encoded("m").tokens
    (tokens * torch.linspace(-1, 1, tokens.shape[2])).sum().backward()
    return {"tokens": tokens.detach(), **gradients(model), **dict(model.named_buffers())}


def test_no_other_encoder_has_a_batch_norm() -> None:
    others = {name for name in MAKERS if norms(MAKERS[name](0.0))}
    assert others == {"image/resnet", "image/torchvision", "audio/clap"}  # that of CLAP is the first layer
    assert {name for name in timm.list_models("test_*") if norms(timm.create_model(name))} == set(TIMM)
    for family in FAMILIES:
        names = torchvision.models.list_models(module=torchvision.models, include=[family])
        if not set(names) & {*TORCHVISION, "vgg11_bn"}:
            with torch.device("meta"):
                assert not norms(torchvision.models.get_model(names[0], weights=None)), family


@pytest.mark.parametrize("name", ENCODERS)
def test_one_row_of_several(name: str) -> None:
    """Gradients are finite, and a norm that got a single value keeps its statistics."""
    model = model_of(name)
    single: dict[_BatchNorm, bool] = {}
    for norm in norms(model):
        norm.register_forward_pre_hook(lambda norm, args: single.update({norm: args[0].numel() == args[0].shape[1]}))
    before = {norm: deepcopy(norm.state_dict()) for norm in norms(model)}
    result = run(model, batch_of(name, [False, True, False]))
    assert all(value.isfinite().all() for value in result.values())
    assert all(norm.training for norm in norms(model))
    for norm, is_single in single.items():
        now = norm.state_dict()
        assert all(torch.equal(now[key], value) for key, value in before[norm].items()) == is_single


@pytest.mark.parametrize("name", ["image/resnet", "video/r3d"])
def test_a_batch_of_several_rows_is_that_of_torch_to_the_bit(name: str) -> None:
    model, batch = model_of(name), batch_of(name, [True, False, True])
    plain = deepcopy(model)
    for norm in norms(plain):
        norm._forward_pre_hooks.clear()
        norm._forward_hooks.clear()
    assert_same_bits(run(model, batch), run(plain, batch))


def test_one_row_with_checkpointing() -> None:
    """The second forward pass uses the same statistics."""
    batch = batch_of("image/resnet", [True])
    plain, saving = model_of("image/resnet"), model_of("image/resnet")
    tune(saving.encoders["m"], Tuning(checkpointing=True))
    assert_same_bits(run(saving, batch), run(plain, batch))


def test_a_run_whose_last_batch_has_one_row_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """44 rows in batches of 43: the second step of each epoch has one image, whose last map is 1x1."""
    model = ["encoder/image=resnet", "data.inputs.image.size=32", "dim=16", "data.batch_size=43"]
    task = ["task=[classification]", "task.classification.input=image", "trainer.max_epochs=2"]
    monkeypatch.setattr(runs, "TINY_MODEL", [*model, *task, "trainer.log_every_n_steps=1"])
    tables = make_tables(tmp_path / "data")
    assert runs.run_tiny(tables, tmp_path / "calm") == 0
    runs.stop_and_resume(1, tables, tmp_path / "stopped")
    runs.assert_same_run(tmp_path / "calm", tmp_path / "stopped")
    assert len(runs.rows_of(tmp_path / "calm")) == 4
