"""Memory and operations of a step, observed for each operation on the meta device.

Tensors on the meta device have a shape but no content. Three things are added: the storages that are alive, whose peak
in bytes is what a device needs; an answer if a program reads a tensor's content; and differences of a real device,
which are fused attention and the casts of autocast. Answers are those with the most work: every row has every
modality, every mask is full, and all values are different.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.fx.experimental import _config as shapes_config
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


class Watch(TorchDispatchMode):
    """Live bytes of storages by kind, and their distribution at the peak.

    Args:
        answers: whether to answer reads of content; not for tensors with content.

    Attributes:
        peak: bytes by kind at the moment of the largest total.
        highest: by kind, its largest number of bytes.
    """

    def __init__(self, *, answers: bool = True) -> None:
        super().__init__()
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.highest: Counter[str] = Counter()
        self._kinds: dict[int, tuple[str, int]] = {}
        self._per_row: dict[int, int] = {}  # number of True values per row of random masks
        self._answers: Mapping[Any, Callable[..., Any]] = (
            {}
            if not answers
            else _ANSWERS
            | {
                aten.bitwise_not.default: self._not,
                aten.nonzero.default: self._nonzero,
                aten.index.Tensor: self._index,
                aten._index_put_impl_.default: lambda values, *_: values,
                aten.index_put_.default: lambda values, *_: values,
                aten.index_put.default: lambda values, *_: torch.empty_like(values),
            }
        )

    def hold(self, kind: str, tensors: Iterator[Tensor]) -> None:
        """Assign tensors to a kind, even if they are already assigned."""
        for tensor in tensors:
            self._see(tensor, kind)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer or run an operation, and record its outputs."""
        out = self._answers.get(func, func)(*args, **(kwargs or {}))
        if self._answers and func is aten.lt.Scalar and 0 < args[1] < 1 and out.ndim == 2:
            self._per_row[out.untyped_storage()._cdata] = max(1, round(out.shape[1] * args[1]))
        for leaf in tree_iter(out):
            if isinstance(leaf, Tensor):
                self._see(leaf, None)
        return out

    def _see(self, tensor: Tensor, kind: str | None) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._kinds.get(key)
        if known is not None:
            if kind is not None and kind != known[0]:
                self.live[known[0]] -= known[1]
                self.live[kind] += known[1]
                self._kinds[key] = (kind, known[1])
            return
        size = storage.nbytes()
        self._kinds[key] = (kind or "activations", size)
        self.live[kind or "activations"] += size
        weakref.finalize(storage, self._forget, key)
        self.highest |= Counter({kind or "activations": self.live[kind or "activations"]})
        if self.live.total() > self.peak.total():
            self.peak = self.live.copy()

    def _forget(self, key: int) -> None:
        kind, size = self._kinds.pop(key)
        self.live[kind] -= size
        self._per_row.pop(key, None)

    def _known(self, mask: Any) -> int | None:
        """Number of True values per row of a mask, if it is a random mask."""
        return self._per_row.get(mask.untyped_storage()._cdata) if isinstance(mask, Tensor) else None

    def _not(self, mask: Tensor) -> Tensor:
        out, known = torch.empty_like(mask), self._known(mask)
        if known is not None:
            self._per_row[out.untyped_storage()._cdata] = mask.shape[1] - known
        return out

    def _nonzero(self, mask: Tensor) -> Tensor:
        known = self._known(mask)
        rows = mask.numel() if known is None else mask.shape[0] * known
        return torch.empty(rows, mask.ndim, dtype=torch.long, device=mask.device)

    def _index(self, values: Tensor, indices: list[Tensor | None]) -> Tensor:
        known = self._known(indices[0])
        if known is not None:
            assert indices[0] is not None
            return values.new_empty(len(indices[0]) * known, *values.shape[2:])
        out = aten.index.Tensor(values, indices)
        if (of_values := self._known(values)) is not None and out.shape == values.shape:
            self._per_row[out.untyped_storage()._cdata] = of_values
        return out


def _scalar(tensor: Tensor) -> bool | int | float:
    """The value that a program reads from a tensor: always one."""
    return torch.ones((), dtype=tensor.dtype).item()


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape


def _unique(values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
    index = torch.empty(values.shape, dtype=torch.long, device=values.device)
    return torch.empty_like(values).flatten(), index, index.flatten().clone()


_ANSWERS: dict[Any, Callable[..., Any]] = {
    aten._local_scalar_dense.default: _scalar,
    aten.equal.default: _equal,
    aten._unique2.default: _unique,
}


class OnDevice(TorchFunctionMode):
    """Runs some functions as a type of device would, in its precision.

    Args:
        device: cpu or cuda.
        autocast: the dtype of autocast; None without autocast.
        watch: records the casts of weights, which stay for the complete step.
    """

    def __init__(self, device: str, autocast: torch.dtype | None, watch: Watch) -> None:
        super().__init__()
        self.watch = watch
        self.device = device
        self.autocast = autocast
        self._cast: dict[int, Tensor] = {}  # weights, once per step

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Apply the casts of autocast, and choose the attention kernel of the device."""
        kwargs = kwargs or {}
        if self.autocast is not None and func in _IN_16_BITS:
            args, kwargs = self._all_cast(args, self.autocast), self._all_cast(kwargs, self.autocast)
        elif self.autocast is not None and func in _IN_32_BITS and self.device == "cuda":
            args, kwargs = self._all_cast(args, torch.float32), self._all_cast(kwargs, torch.float32)
        if func in (torch.autograd.backward, torch.autograd.grad):
            with self:  # recomputation in the backward pass needs the same casts
                return _differentiate(func, *args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return _attention(self.device, *args, **kwargs)
        if func is F.dropout and self.device == "cuda":
            return _dropout(*args, **kwargs)
        return func(*args, **kwargs)

    def _all_cast(self, values: Any, dtype: torch.dtype) -> Any:
        if isinstance(values, dict):
            return {key: self._all_cast(value, dtype) for key, value in values.items()}
        if isinstance(values, tuple | list):
            return type(values)(self._all_cast(value, dtype) for value in values)
        if not isinstance(values, Tensor) or not values.is_floating_point() or values.dtype in (dtype, torch.float64):
            return values
        if not isinstance(values, nn.Parameter):
            return values.to(dtype)
        if id(values) not in self._cast:
            self._cast[id(values)] = values.to(dtype)
            self.watch.hold("casts", iter([self._cast[id(values)]]))
        return self._cast[id(values)]


def _differentiate(func: Any, outputs: Any, inputs: Any = None, **options: Any) -> Any:
    """`torch.autograd.backward(loss)` or `.grad(loss, inputs)`, which would leave the function modes."""
    outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    ones = tuple(torch.ones_like(output) for output in outputs)
    keep, more = bool(options.get("retain_graph")), bool(options.get("create_graph"))
    if func is torch.autograd.backward:
        return _engine_run_backward(outputs, ones, keep, more, (), allow_unreachable=True, accumulate_grad=True)
    unused = bool(options.get("allow_unused"))
    return _engine_run_backward(outputs, ones, keep, more, tuple(inputs), unused, accumulate_grad=False)


_IN_16_BITS = {
    *(F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d, F.scaled_dot_product_attention),
    *(torch.matmul, torch.bmm, torch.mm, torch.addmm, torch.baddbmm, torch.einsum),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.mm),
}
_IN_32_BITS = {
    *(F.layer_norm, F.group_norm, F.softmax, F.log_softmax, F.cross_entropy, F.nll_loss, F.mse_loss, F.l1_loss),
    *(F.cosine_similarity, F.normalize, F.softplus, torch.softmax, torch.log_softmax, torch.exp, torch.log, torch.pow),
    *(torch.cumsum, torch.prod, torch.norm, torch.rsqrt, torch.logsumexp, Tensor.softmax, Tensor.log_softmax),
    *(Tensor.exp, Tensor.log, Tensor.pow, Tensor.cumsum, Tensor.prod, Tensor.norm, Tensor.rsqrt, Tensor.logsumexp),
    *(F.binary_cross_entropy_with_logits, F.smooth_l1_loss, F.huber_loss),
}


def _attention(
    device: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros(attn_mask.shape, dtype=query.dtype, device=query.device)
    if device == "cpu" and dropout_p == 0.0:
        return aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
        )[0]
    if device == "cuda" and attn_mask is None and query.dtype in (torch.bfloat16, torch.float16):
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
    if device == "cuda":
        bias = None if attn_mask is None else attn_mask.expand(*query.shape[:3], key.shape[2])
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, True, dropout_p, is_causal, scale=scale
        )[0]
    return aten._scaled_dot_product_attention_math(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)[0]


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of a GPU, which stores a mask of bytes; other devices store a factor per value."""
    return torch.native_dropout(input, p, training)[0] if training and p > 0 else input


def _attention_flop(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward_flop(
    grad: Any, query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


def flop_counter() -> FlopCounterMode:
    """Torch's counter, extended by the attention kernels of CPUs."""
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flop,
        },
    )


@contextmanager
def without_content() -> Iterator[None]:
    """The meta device, where `nonzero` finds every element."""
    with ExitStack() as stack:
        stack.enter_context(shapes_config.patch(meta_nonzero_assume_all_nonzero=True))  # type: ignore[attr-defined]
        stack.enter_context(torch.device("meta"))
        yield
