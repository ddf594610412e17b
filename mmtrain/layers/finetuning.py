"""How an encoder learns: frozen wholly, in its lowest layers or for a while, slower than the rest, through adapters.

Any encoder can be frozen and slowed down. What goes by layer asks it for `layers()`, lowest first. Nothing is wrapped:
names of weights stay, except below the adapters of `peft`.
"""

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmtrain.annotations import Fraction, NonNegativeFloat, NonNegativeInt

Layer = tuple[nn.Module | nn.Parameter, ...]


@runtime_checkable
class Layered(Protocol):
    """An encoder that tells its layers."""

    def layers(self) -> list[Layer]:
        """Embeddings or stem first, then one entry a block; final norms and projections are in none."""
        ...


@dataclass(frozen=True)
class Tuning:
    """How one encoder learns.

    Attributes:
        freeze: true: nothing of it learns; N: not its embeddings (or stem) and its N lowest blocks.
        freeze_until: nothing of it learns before this optimizer step; None for no such step.
        lr_mult: its learning rate over that of the run.
        layer_decay: from each layer to the next lower one the learning rate is so many times as high (2106.08254, A).
        checkpointing: forget what is inside its blocks and compute it again in the backward pass (1604.06174).
        peft: a configuration of `peft`, such as LoraConfig: the weights stay and adapters learn; None for none.
    """

    freeze: bool | NonNegativeInt = False
    freeze_until: NonNegativeInt | None = None
    lr_mult: NonNegativeFloat = 1.0
    layer_decay: Fraction = 1.0
    checkpointing: bool = False
    peft: Any = None

    def __post_init__(self) -> None:
        for name, wanted, good in (
            ("freeze", "true, false or a number of blocks", isinstance(self.freeze, int) and self.freeze >= 0),
            ("freeze_until", "a step above 0, or null", self.freeze_until is None or _is_step(self.freeze_until)),
            ("lr_mult", "a number above 0, or freeze to true", self.lr_mult > 0),
            ("layer_decay", "a number above 0 and at most 1", 0 < self.layer_decay <= 1),
        ):
            if not good:
                raise ValueError(f"{name} = {getattr(self, name)}; set {name} to {wanted}")
        if self.freeze is True and self.peft is not None:
            raise ValueError("freeze = true and peft: the adapters could not learn; set freeze to false, peft freezes")
        if self.freeze is True and self.freeze_until is not None:
            raise ValueError(
                f"freeze = true and freeze_until = {self.freeze_until} contradict each other; set freeze to false"
            )


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


KEYS = tuple(field.name for field in fields(Tuning))


def tune(encoder: nn.Module, tuning: Tuning) -> None:
    """Put adapters in, freeze, and checkpoint, as `tuning` says.

    Args:
        encoder: changed where it is; weights are loaded already.
        tuning: how it learns.

    Raises:
        ValueError: when the encoder has no layers to go by, too few, or nothing that `peft` can adapt.
    """
    if tuning.peft is not None:
        _adapt(encoder, tuning.peft)
    if tuning.freeze is True:
        encoder.requires_grad_(False)
    elif tuning.freeze:
        layers = _layers(encoder, f"freeze = {tuning.freeze}", "set freeze to true or false")
        if tuning.freeze >= len(layers):
            raise ValueError(
                f"freeze = {tuning.freeze}, but {type(encoder).__name__} has {len(layers) - 1} blocks;"
                f" set freeze to {len(layers) - 1} or less, or to true"
            )
        for part in [part for layer in layers[: tuning.freeze + 1] for part in layer]:
            part.requires_grad_(False)
    if tuning.checkpointing:
        layers = _layers(encoder, "checkpointing = true", "set checkpointing to false")
        for module in [part for layer in layers[1:] for part in layer if isinstance(part, nn.Module)]:
            module.forward = types.MethodType(_recompute_forward, module)


def _layers(encoder: nn.Module, what: str, fix: str) -> list[Layer]:
    if not isinstance(encoder, Layered):
        raise ValueError(f"{what}, but {type(encoder).__name__} has no layers() that tells its blocks; {fix}")
    return encoder.layers()


def _adapt(encoder: nn.Module, config: Any) -> None:
    """Adapters for the modules that `target_modules` names; without a name, for every linear map inside the blocks."""
    from peft import inject_adapter_in_model

    if vars(config).get("megatron_config"):  # peft imports the module that megatron_core names, whichever it is
        raise ValueError("peft: megatron_config is of Megatron's layers, which no encoder here has; leave it out")
    linear = [name for name, _ in _linear_maps(encoder)]
    if not config.target_modules:
        if not linear:
            raise ValueError(
                f"peft: {type(encoder).__name__} has no linear maps in its blocks; set peft.target_modules, or no peft"
            )
        config.target_modules = linear
        if "feedforward_modules" in vars(config) and not config.feedforward_modules:  # of IA3
            config.feedforward_modules = [name for name in linear if "fc" in name or "intermediate" in name]
    try:
        inject_adapter_in_model(config, encoder)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name in linear})
        raise ValueError(f"peft: {error}\n    the linear maps are {', '.join(names) or 'none'}") from error


def _linear_maps(encoder: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Linear maps of the blocks, or of an encoder without blocks. Those of GPT-2 are no Linear."""
    from transformers.pytorch_utils import Conv1D

    inside = {id(encoder)}
    if isinstance(encoder, Layered):
        inside = {id(part) for layer in encoder.layers()[1:] for part in layer}
    within = [m for m in encoder.modules() if id(m) in inside]
    ids = {id(m) for part in within for m in part.modules() if isinstance(m, nn.Linear | Conv1D)}
    yield from ((name, m) for name, m in encoder.named_modules() if id(m) in ids)


def _recompute_forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The forward pass of a checkpointed block, on the instance in place of its class's own."""
    forward = type(module).forward
    if not (module.training and torch.is_grad_enabled()):
        return forward(module, *args, **kwargs)
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:  # torch.compile knows of no contexts
        return checkpoint(forward, module, *args, use_reentrant=False, **kwargs)

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), _ReenterableContext(partial(batchnorm_frozen, norms))

    return checkpoint(forward, module, *args, use_reentrant=False, context_fn=contexts, **kwargs)


class _ReenterableContext:
    """A context that is entered once for each time that a graph is gone through: balances do so for every task."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make

    def __enter__(self) -> None:
        self._open = self._make()
        self._open.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)


@contextmanager
def batchnorm_frozen(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """The second forward pass shows a batch norm nothing new."""
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, count in before:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count


def frozen_modules(encoder: nn.Module) -> list[nn.Module]:
    """Modules that stay in evaluation mode: the largest without trainable weights, and batch norms under adapters."""
    if all(not p.requires_grad for p in encoder.parameters()):
        return [encoder]
    frozen_children: list[nn.Module] = []
    for child in encoder.children():
        if next(child.parameters(), None) is not None:
            frozen_children += frozen_modules(child)
    return frozen_children


def rates_of(encoder: nn.Module, tuning: Tuning) -> Mapping[int, float]:
    """By the id of each parameter, its learning rate over that of the run."""
    rates = {id(p): tuning.lr_mult for p in encoder.parameters()}
    if tuning.layer_decay == 1.0:
        return rates
    layers = _layers(encoder, f"layer_decay = {tuning.layer_decay}", "set layer_decay to 1")
    for depth, layer in enumerate(layers):
        for part in layer:
            for p in part.parameters() if isinstance(part, nn.Module) else [part]:
                rates[id(p)] = tuning.lr_mult * tuning.layer_decay ** (len(layers) - depth)
    return rates


@contextmanager
def frozen(encoders: list[nn.Module]) -> Iterator[None]:
    """Encoders that do not learn in this step: in evaluation mode and without a graph."""
    learning = [p for encoder in encoders for p in encoder.parameters() if p.requires_grad]
    modes = [(m, m.training) for encoder in encoders for m in encoder.modules()]
    try:
        for p in learning:
            p.requires_grad_(False)
        for encoder in encoders:
            encoder.eval()
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
