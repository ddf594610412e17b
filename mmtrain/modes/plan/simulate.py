"""One training step on the meta device: its memory and its floating-point operations."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim import Optimizer

from mmtrain.build import build_lit, build_model
from mmtrain.data.module import DataModule
from mmtrain.modes.plan.watch import OnDevice, Watch, flop_counter, without_content
from mmtrain.training.lit_module import LitModel
from mmtrain.training.precision.bf16_true import to_half
from mmtrain.training.step import TrainingStep
from mmtrain.training.trainer import build_callbacks
from mmtrain.types import Batch

NUM_SIMULATED = 2  # micro-batches of a step: the second one already finds gradients
AUTOCAST = {"bf16-mixed": torch.bfloat16, "bf16": torch.bfloat16, "16-mixed": torch.float16, "16": torch.float16}
WHOLLY = {"bf16-true": torch.bfloat16, "64": torch.float64, "64-true": torch.float64}


@dataclass(frozen=True)
class Step:
    """Resources of one step on one device.

    Attributes:
        memory: bytes at the peak, by kind: weights, casts (of autocast), averages, gradients, optimizer,
            activations, data.
        activations: bytes at the peak of activations, which may be at another moment.
        flops: floating-point operations of the complete step, forward and backward, as torch counts them.
    """

    memory: Mapping[str, int]
    activations: int
    flops: int

    @property
    def peak(self) -> int:
        """The sum of that memory, in bytes."""
        return sum(self.memory.values())


@dataclass(frozen=True)
class Simulator:
    """Steps of a model on the meta device, for any number of rows.

    Args:
        lit: the model and its training step, without content.
        example: a batch with the longest sequences; its number of rows does not matter.
        device: cpu or cuda.
        precision: as Lightning names it.
        num_micro_batches: of a step.
        gradients_of: for a balance that compares gradients, the point where they are taken; otherwise None.
        num_averages: copies of the weights that callbacks keep.
    """

    lit: LitModel
    example: Batch
    device: str
    precision: str
    num_micro_batches: int
    gradients_of: str | None
    num_averages: int

    def step(self, num_rows: int) -> Step:
        """Simulate a step with this number of rows per micro-batch, on one device."""
        lit = self.lit
        watch, counter = Watch(), flop_counter()
        on_device = OnDevice(self.device, AUTOCAST.get(self.precision), watch)
        with without_content(), on_device:
            window = [of_size(self.example, num_rows) for _ in range(self.num_micro_batches)]
            watch.hold("weights", tensors_of(lit.model))
            watch.hold("data", (t for batch in window for t in tensors_of_batch(batch)))
            optimizer = self._optimizer(watch)
            averages = [copy.deepcopy(list(tensors_of(lit.model))) for _ in range(self.num_averages)]
            watch.hold("averages", (t for copies in averages for t in copies))
            with _gradients_marked(lit, watch), watch, counter:
                self.forward_and_backward(window[:NUM_SIMULATED])
                self._take(optimizer)
            lit.zero_grad()
        simulated = min(NUM_SIMULATED, self.num_micro_batches)
        flops = counter.get_total_flops() * self.num_micro_batches // simulated
        return Step(dict(watch.peak), watch.highest["activations"], flops)

    def _optimizer(self, watch: Watch) -> Optimizer:
        """The optimizer of a run in progress, with its moments."""
        learning = [p for p in self.lit.parameters() if p.requires_grad]
        optimizer = self.lit.make_optimizer([{"params": learning}])
        for parameter in learning:
            parameter.grad = torch.empty_like(parameter)
        with Watch():  # answers when an optimizer reads its step
            optimizer.step()
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            if self.device == "cuda" and group.get("foreach", 0) is None and not group.get("fused"):
                group["foreach"] = True  # as torch chooses on a GPU
        watch.hold("optimizer", (t for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t)))
        return optimizer

    def forward_and_backward(self, window: list[Batch]) -> None:
        """Compute the gradients of these micro-batches, and leave them in the parameters."""
        step = TrainingStep(self.lit.model, window, number=0, seed=0, gradient_cache=self.lit.gradient_cache)
        if self.gradients_of is not None:
            step.gramian(self.gradients_of)
        for number in range(len(step)):
            losses = [loss for loss in step.forward(number).losses if loss.requires_grad]
            torch.autograd.backward(sum(losses[1:], losses[0]))

    def _take(self, optimizer: Optimizer) -> None:
        gradients = [p.grad for p in self.lit.parameters() if p.grad is not None]
        if self.lit.gradient_clip_val is not None:
            torch.nn.utils.get_total_norm(gradients)
        optimizer.step()


def simulator(cfg: DictConfig, data: DataModule, example: Batch, *, device: str) -> Simulator:
    """Build the simulator of a configuration. No weight is created or loaded.

    Args:
        cfg: resolved.
        data: with its tables, which determine vocabularies and classes.
        example: see `Simulator`.
        device: cpu or cuda.
    """
    with without_content():
        lit = build_lit(cfg, build_model(cfg, data))
        lit.model.train()
        dtype = WHOLLY.get(str(cfg.trainer.precision))
        if dtype is torch.bfloat16:
            to_half(lit.model)
        elif dtype is not None:
            lit.model.to(dtype)
    return Simulator(
        lit=lit,
        example=example if dtype is None else example.map(partial(_like, dtype=dtype)),
        device=device,
        precision=str(cfg.trainer.precision),
        num_micro_batches=cfg.trainer.accumulate_grad_batches,
        gradients_of=cfg.balance.get("gradients_of"),
        num_averages=sum(isinstance(part, WeightAveraging) for part in build_callbacks(cfg, monitor=None)),
    )


def of_size(batch: Batch, num_rows: int) -> Batch:
    """A batch that has only shapes, with the rows of another in any number. Every modality is present.

    Args:
        batch: a batch with sequences of the same length.
        num_rows: B of the new batch.
    """
    sized = batch.map(lambda t: torch.empty(num_rows, *t.shape[1:], dtype=t.dtype, device="meta"))
    return replace(sized, ids=[str(row) for row in range(num_rows)], bad=[], references={})


def _like(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers."""
    yield from model.parameters()
    yield from model.buffers()


def tensors_of_batch(batch: Batch) -> Iterator[Tensor]:
    """Tensors of a batch that are on the device."""
    results: list[Tensor] = []
    batch.map(lambda tensor: results.append(tensor) or tensor)  # type: ignore[func-returns-value]
    yield from results


@contextmanager
def _gradients_marked(lit: LitModel, watch: Watch) -> Iterator[None]:
    """Mark gradients that stay with their parameters."""

    def note(parameter: Tensor) -> None:
        assert parameter.grad is not None
        watch.hold("gradients", iter([parameter.grad]))

    hooks = [p.register_post_accumulate_grad_hook(note) for p in lit.parameters() if p.requires_grad]
    yield
    for hook in hooks:
        hook.remove()
