"""What learns, how fast, and what it costs: freezing, rates by layer, adapters, checkpointing."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig
from torch import Tensor, nn

from mmtrain.build import _without_tuning, tunings_of
from mmtrain.config.compose import config_dir
from mmtrain.config.rules import TUNING
from mmtrain.layers.finetuning import KEYS, Tuning, frozen, frozen_modules, rates_of, tune
from mmtrain.types import Features
from tests.batches import gradients, make_model, random_batch
from tests.steps import loader, make_lit, make_trainer


class Residual(nn.Module):
    """A block with what makes checkpointing hard: dropout and a batch norm."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 9), nn.Linear(9, 6)
        self.norm = nn.BatchNorm1d(6) if norm else nn.Identity()
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm((x + self.drop(self.fc2(self.fc1(x).relu()))).transpose(1, 2)).transpose(1, 2)


class Encoder(nn.Module):
    """A stem with a token of its own, three blocks and a last projection."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.dim = 6
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.stem = nn.Linear(4, 6)
        self.blocks = nn.ModuleList(Residual(norm) for _ in range(3))
        self.proj = nn.Linear(6, 6)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        return [(self.stem, self.token), *((block,) for block in self.blocks)]

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        x = self.stem(values) + self.token
        for block in self.blocks:
            x = block(x)
        x = self.proj(x)
        return Features(x, torch.ones(x.shape[:2], dtype=torch.bool))


class Plain(nn.Module):
    """An encoder that does not tell its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 6)


def learning(module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


def test_nothing_changes_by_default() -> None:
    encoder = Encoder()
    before = set(encoder.state_dict())
    tune(encoder, Tuning())
    assert learning(encoder) == before == set(encoder.state_dict())
    assert set(rates_of(encoder, Tuning()).values()) == {1.0}


def test_freezing_all() -> None:
    encoder = Encoder()
    tune(encoder, Tuning(freeze=True))
    assert learning(encoder) == set()
    assert frozen_modules(encoder) == [encoder]
    assert encoder(torch.randn(2, 3, 4)).tokens.grad_fn is None


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_freezing_the_lowest_blocks_freezes_what_is_below_them(blocks: int) -> None:
    encoder = Encoder()
    tune(encoder, Tuning(freeze=blocks))
    parts = {name.removeprefix("blocks.").split(".")[0] for name in learning(encoder)}
    assert parts == {*map(str, range(blocks, 3)), "proj"}
    outputs: list[Tensor] = []
    encoder.blocks[blocks - 1].register_forward_hook(lambda module, inputs, out: outputs.append(out))
    tokens = encoder(torch.randn(2, 3, 4)).tokens
    assert outputs[0].grad_fn is None and tokens.grad_fn is not None


def test_what_is_frozen_stays_in_evaluation_mode_in_training() -> None:
    model = make_model()
    encoder = model.encoders["image"]
    encoder.requires_grad_(False)
    model.train()
    assert model.training and model.encoders["text"].training
    assert not any(m.training for m in encoder.modules())
    encoder.requires_grad_(True)
    assert all(m.training for m in model.train().modules())


def test_a_frozen_batch_norm_keeps_its_statistics() -> None:
    model = make_model()
    model.encoders["image"] = encoder = Encoder(norm=True).double()
    tune(encoder, Tuning(freeze=1))
    model.train()
    before = copy.deepcopy(encoder.state_dict())
    encoder(torch.randn(5, 3, 4, dtype=torch.float64))
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("blocks.1.norm", "blocks.2.norm")) for name in changed)


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        ({"freeze": 4}, "freeze = 4, but Encoder has 3 blocks; set freeze to 3 or less, or to true"),
        ({"freeze": -1}, "freeze = -1; set freeze to true, false or a number of blocks"),
        ({"freeze": 0.5}, "freeze = 0.5; set freeze to"),
        ({"freeze": "all"}, "freeze = all; set freeze to"),
        ({"freeze_until": 0}, "freeze_until = 0; set freeze_until to a step above 0, or null"),
        ({"freeze_until": "ten"}, "freeze_until = ten; set freeze_until to a step above 0, or null"),
        ({"freeze": True, "freeze_until": 3}, "freeze = true and freeze_until = 3 contradict"),
        ({"freeze": True, "peft": LoraConfig()}, "the adapters could not learn; set freeze to false"),
        ({"lr_mult": 0}, "lr_mult = 0; set lr_mult to a number above 0, or freeze to true"),
        ({"layer_decay": 1.5}, "layer_decay = 1.5; set layer_decay to a number above 0 and at most 1"),
        ({"peft": LoraConfig(target_modules=["nothing"])}, "the linear maps are fc1, fc2"),
        ({"peft": LoraConfig(megatron_config={"a": 1}, megatron_core="os")}, "peft: megatron_config is of Megatron's"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(tuning: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tune(Encoder(), Tuning(**tuning))


@pytest.mark.parametrize("tuning", [{"freeze": 1}, {"checkpointing": True}])
def test_layers_are_asked_for_where_they_are_needed(tuning: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Plain has no layers\(\) that tells its blocks; set"):
        tune(Plain(), Tuning(**tuning))
    with pytest.raises(ValueError, match=r"layer_decay = 0\.5, but Plain has no layers"):
        rates_of(Plain(), Tuning(layer_decay=0.5))
    tune(Plain(), Tuning(freeze=True, lr_mult=0.1))


def test_rates_fall_from_layer_to_layer() -> None:
    encoder = Encoder()
    rates = rates_of(encoder, Tuning(lr_mult=0.1, layer_decay=0.5))
    of = {name: rates[id(p)] for name, p in encoder.named_parameters()}
    assert of["proj.weight"] == pytest.approx(0.1)
    assert of["blocks.2.fc1.weight"] == pytest.approx(0.05)
    assert of["blocks.0.fc2.bias"] == pytest.approx(0.0125)
    assert of["stem.weight"] == of["token"] == pytest.approx(0.00625)


def test_the_optimizer_has_the_rates_and_a_decay_of_matrices_only(tmp_path: Path) -> None:
    lit = make_lit(
        tasks=("classification", "contrastive"),
        optimizer=partial(torch.optim.AdamW, lr=0.01, weight_decay=0.5),
        tunings={"image": Tuning(lr_mult=0.1), "text": Tuning(freeze_until=2)},
    )
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(lit, train_dataloaders=loader([[random_batch(0)]]))
    names = {id(p): n for n, p in lit.named_parameters()}
    seen: set[str] = set()
    for group in trainer.optimizers[0].param_groups:
        for p in group["params"]:
            name = names[id(p)]
            seen.add(name)
            slow = name.startswith("model.encoders.image")
            assert group["lr"] == pytest.approx(0.001 if slow else 0.01), name
            assert (group["weight_decay"] > 0) == (name.endswith("weight") and p.ndim >= 2), name
    assert seen == set(names.values())
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.01  # the logged one


def test_an_encoder_waits_for_its_step_and_then_learns_as_if_it_began_there(tmp_path: Path) -> None:
    windows = [[random_batch(n)] for n in range(5)]

    def weights_after(steps: int) -> dict[str, Tensor]:
        lit = make_lit(
            optimizer=partial(torch.optim.AdamW, lr=0.01, weight_decay=0.5, eps=1e-16),
            tunings={"image": Tuning(freeze_until=3), "text": Tuning()},
        )
        make_trainer(tmp_path, max_epochs=1).fit(lit, train_dataloaders=loader(windows[:steps]))
        assert all(p.requires_grad for p in lit.parameters())
        return {n: p.detach().clone() for n, p in lit.model.named_parameters()}

    start = {n: p.detach() for n, p in make_lit().model.named_parameters()}
    three, four = weights_after(3), weights_after(4)
    of_image = [n for n in start if n.startswith("encoders.image")]
    assert all(torch.equal(three[n], start[n]) for n in of_image)
    assert not any(torch.equal(three[n], start[n]) for n in start if n.startswith("encoders.text.blocks"))
    name = "encoders.image.blocks.0.mlp.fc1.weight"
    first = four[name] - start[name] * (1 - 0.01 * 0.5)
    torch.testing.assert_close(first.abs(), torch.full_like(first, 0.01), rtol=1e-3, atol=0)  # Adam's first step


def test_held_encoders_have_no_graph_and_come_back_as_they_were() -> None:
    encoder = Encoder(norm=True)
    encoder.blocks[0].requires_grad_(False)
    encoder.blocks[0].eval()
    before = learning(encoder), [m.training for m in encoder.modules()]
    with frozen([encoder]):
        assert not any(m.training for m in encoder.modules())
        assert encoder(torch.randn(2, 3, 4)).tokens.grad_fn is None
    assert (learning(encoder), [m.training for m in encoder.modules()]) == before


@pytest.mark.parametrize("norm", [False, True])
def test_checkpointing_changes_no_gradient_and_no_statistic(norm: bool) -> None:
    torch.manual_seed(0)
    plain = Encoder(norm=norm).double()
    saving = copy.deepcopy(plain)
    tune(saving, Tuning(checkpointing=True))
    saving = copy.deepcopy(saving)  # as averaging of weights does
    values = torch.randn(5, 3, 4, dtype=torch.float64)
    held_back: list[int] = []
    results = []
    for encoder in (plain, saving):
        torch.manual_seed(1)  # dropout
        count = [0]
        pack: Callable[[Tensor], Tensor] = lambda t, c=count: c.__setitem__(0, c[0] + t.numel()) or t  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            tokens = encoder(values).tokens
        held_back.append(count[0])
        tokens.square().sum().backward()
        results.append((tokens, gradients(encoder), dict(encoder.named_buffers())))
    (tokens, grads, buffers), (tokens_again, grads_again, buffers_again) = results
    assert torch.equal(tokens, tokens_again)
    assert all(torch.equal(grads[n], grads_again[n]) for n in grads)
    assert all(torch.equal(buffers[n], buffers_again[n]) for n in buffers)
    assert held_back[1] < held_back[0] / 2
    assert set(saving.state_dict()) == set(plain.state_dict())


@pytest.mark.parametrize("norm", [False, True])
def test_a_checkpointed_graph_is_gone_through_for_each_of_several_losses(norm: bool) -> None:
    torch.manual_seed(0)
    plain = Encoder(norm=norm).double()
    saving = copy.deepcopy(plain)
    tune(saving, Tuning(checkpointing=True))
    values = torch.randn(5, 3, 4, dtype=torch.float64)
    results = []
    for encoder in (plain, saving):
        torch.manual_seed(1)
        tokens = encoder(values).tokens
        for loss in (tokens.square().sum(), tokens.abs().sum()):
            results.append(torch.autograd.grad(loss, list(encoder.parameters()), retain_graph=True, allow_unused=True))
    assert all(
        (g is None and h is None) or torch.equal(g, h)
        for before, after in ((results[0], results[2]), (results[1], results[3]))
        for g, h in zip(before, after, strict=True)
    )


@pytest.mark.parametrize("config", [LoraConfig(r=2), LoHaConfig(r=2), LoKrConfig(r=2), IA3Config()])
def test_adapters_learn_inside_the_blocks_and_start_as_the_model_was(config: Any) -> None:
    encoder = Encoder().eval()
    values = torch.randn(2, 3, 4)
    before = encoder(values).tokens
    weights = {n: w.clone() for n, w in encoder.state_dict().items()}
    tune(encoder, Tuning(peft=copy.deepcopy(config)))
    torch.testing.assert_close(encoder(values).tokens, before)
    names = learning(encoder)
    assert names and all(name.startswith("blocks.") for name in names)
    assert len({name.split(".")[1] for name in names}) == 3
    encoder(values).tokens.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    kept = {n.replace(".base_layer", ""): w for n, w in encoder.state_dict().items() if n not in names}
    assert all(torch.equal(kept[n], w) for n, w in weights.items())


def test_the_configuration_names_the_same_keys_everywhere() -> None:
    default = OmegaConf.load(config_dir() / "tuning" / "default.yaml")
    assert tuple(default) == KEYS == TUNING
    assert Tuning(**default) == Tuning()
    for file in sorted((config_dir() / "encoder").glob("*/*.yaml")):
        assert "/tuning@_here_: default" in file.read_text(), f"{file.name} does not have what every encoder has"


def test_an_encoder_inside_another_learns_in_its_own_way() -> None:
    image = {"_target_": "mmtrain.encoders.image.resnet.ResNet", "name": "resnet18", "freeze": True}
    video = {"_target_": "mmtrain.encoders.video.frames.Frames", "image": image, "lr_mult": 0.5}
    cfg = OmegaConf.create({"encoder": {"video": video}})
    assert tunings_of(cfg, ["video"]) == {"video.image": Tuning(freeze=True), "video": Tuning(lr_mult=0.5)}
    bare = _without_tuning(cfg.encoder.video)
    assert "lr_mult" not in bare and "freeze" not in bare.image
    assert "freeze" in cfg.encoder.video.image
