"""Exports a trained model to files that transformers, timm or plain torch load without mmtrain.

An encoder with an architecture of transformers or timm writes itself (`export`). Everything else becomes a program of
`torch.export`: a graph and its weights in one file, which `torch.export.load` runs.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPImageProcessor, VideoMAEVideoProcessor

from mmtrain.data.inputs.image import ImageInput
from mmtrain.data.inputs.text import TextInput
from mmtrain.data.inputs.video import VideoInput
from mmtrain.data.protocols import InputKind
from mmtrain.errors import ConfigError
from mmtrain.io.run_files import write_json
from mmtrain.layers.image_processor import processor_options, timm_options
from mmtrain.model import LazyView, MultimodalModel
from mmtrain.types import Batch, Features

PROGRAM = "model.pt2"
WEIGHTS = "model.safetensors"


@runtime_checkable
class SupportsExport(Protocol):
    """An encoder that another library can load."""

    def export(self, folder: Path) -> str | None:
        """Write configuration and weights into a folder, and return the code that loads them; None if it cannot."""
        ...


class ExportableEncoder(nn.Module):
    """One encoder with plain tensors as input and output.

    Args:
        encoder: maps (values, mask) to `Features`.
        fills_gaps: whether NaN is a missing number, which the loader replaces by 0.
    """

    def __init__(self, encoder: nn.Module, *, fills_gaps: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.fills_gaps = fills_gaps

    def forward(self, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T, D), with zeros at masked positions, and their mask (B, T)."""
        values = values.masked_fill(values.isnan(), 0.0) if self.fills_gaps else values
        features: Features = self.encoder(values, mask).cleared()
        return features.tokens, features.mask


class ExportableModel(nn.Module):
    """Encoders, fusion and all tasks that predict each row independently. Rows may miss any modality.

    Args:
        model: as it was trained.
        tasks: names of the tasks.
        with_gaps: modalities in which NaN means a missing number, which the loader replaces by 0. A row of gaps
            alone is a missing modality.
    """

    def __init__(self, model: MultimodalModel, tasks: list[str], *, with_gaps: Collection[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tasks
        self.with_gaps = frozenset(with_gaps)

    def forward(self, inputs: dict[str, dict[str, Tensor]]) -> dict[str, Any]:
        """Return predictions by task.

        Args:
            inputs: by modality, {"values": ..., "present": (B,) bool} and, for padded sequences, "mask". Values of rows
                that are not present have no influence.
        """
        encoded = {name: self._encode(name, inputs[name]) for name in self.model.encoders}
        # tasks read only features, so the view needs no batch
        view = LazyView(model=self.model, batch=_NO_BATCH, _encoded=encoded)
        return {name: view.predictions(name) for name in self.names}

    def _encode(self, name: str, given: dict[str, Tensor]) -> Features:
        values, present, mask = given["values"], given["present"], given.get("mask")
        if name in self.with_gaps:
            gaps = values.isnan()
            present = present & ~gaps.flatten(1).all(dim=1)
            values = values.masked_fill(gaps, 0.0)
        rows = present.reshape(-1, *[1] * (values.ndim - 1))
        values = torch.where(rows, values, torch.zeros_like(values))
        # the encoder gets a row of valid zeros where the modality is missing: a softmax over nothing would be NaN
        mask = None if mask is None else mask | ~present.unsqueeze(1)
        tokens, valid = self.model.encoders[name](values, mask)
        return Features(tokens, valid & present.unsqueeze(1)).cleared()


_NO_BATCH = Batch(
    ids=[], rows=torch.empty(0), inputs={}, present={}, targets={}, labelled={}, keys={}, draws=torch.empty(0)
)


def export_encoder(encoder: nn.Module, example: Mapping[str, Tensor], folder: Path, *, fills_gaps: bool = False) -> str:
    """Write an encoder.

    Args:
        encoder: adapters in it are merged into their weights.
        example: {"values": ...}, and "mask" if it has padding, of at least two rows.
        folder: created if it does not exist.
        fills_gaps: whether a program replaces NaN by 0, as the loader does for missing numbers.

    Returns:
        The code that loads the encoder.
    """
    merge_adapters(encoder)
    encoder.eval()
    folder.mkdir(parents=True, exist_ok=True)
    code = encoder.export(folder) if isinstance(encoder, SupportsExport) else None
    if code is not None:
        return code
    _write_program(ExportableEncoder(encoder, fills_gaps=fills_gaps), tuple(example.values()), folder)
    return f'torch.export.load("{folder / PROGRAM}").module()({", ".join(example)})  # tokens, mask'


def export_preprocessing(kind: InputKind, folder: Path) -> None:
    """Write the preprocessing of an exported encoder, if its library has a file for it.

    This is a processor or a tokenizer for transformers, and the configuration of the weights for timm. Nothing is
    written for a torch program or another kind of input.

    Args:
        kind: the input of the training.
        folder: into which `export_encoder` has written the encoder.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "pretrained_cfg" in config and isinstance(kind, ImageInput):
        prepared = config | {"pretrained_cfg": config["pretrained_cfg"] | _timm(kind)}
        write_json(folder / "config.json", prepared, indent=2)
    if "model_type" not in config:
        return
    if isinstance(kind, ImageInput):
        image_processor(kind).save_pretrained(folder)
    elif isinstance(kind, VideoInput):
        VideoMAEVideoProcessor(**_prepared(kind)).save_pretrained(folder)
    elif isinstance(kind, TextInput):
        kind.to_transformers().save_pretrained(folder)


def image_processor(kind: ImageInput) -> CLIPImageProcessor:
    """The processor of transformers that prepares images as this input does."""
    return CLIPImageProcessor(**_prepared(kind))


def _prepared(kind: ImageInput | VideoInput) -> dict[str, Any]:
    geometry, normalize = kind.geometry, kind.normalize
    return processor_options(
        size=geometry.size,
        resized=geometry.resized,
        interpolation=geometry.interpolation,
        mean=normalize.mean.flatten().tolist(),
        std=normalize.std.flatten().tolist(),
    )


def _timm(kind: ImageInput) -> dict[str, Any]:
    return timm_options(
        size=kind.size,
        resized=kind.geometry.resized,
        interpolation=kind.geometry.interpolation,
        mean=kind.mean,
        std=kind.std,
    )


def export_model(
    model: MultimodalModel,
    example: Mapping[str, Mapping[str, Tensor]],
    folder: Path,
    *,
    with_gaps: Collection[str] = (),
) -> str:
    """Write a complete model as a program for rows that may miss modalities: see `Whole`.

    Args:
        model: adapters in it are merged into their weights.
        example: by modality, as for `export_encoder`.
        folder: created if it does not exist.
        with_gaps: modalities in which NaN is a missing number.

    Returns:
        The code that loads the model.

    Raises:
        ConfigError: if no task predicts a row independently.
    """
    merge_adapters(model)
    model.eval()
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [name for name in model.tasks if not _compares_rows(model, name)]
    if not tasks:
        raise ConfigError(
            f"task=[{','.join(model.tasks)}]: no task predicts one row independently\n    fix: export an encoder"
        )
    inputs = {
        name: {**tensors, "present": torch.ones(len(tensors["values"]), dtype=torch.bool)}
        for name, tensors in example.items()
    }
    _write_program(ExportableModel(model, tasks, with_gaps=with_gaps), (inputs,), folder)
    shapes = {name: {key: _describe(key, tensors) for key in tensors} for name, tensors in inputs.items()}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", config | {"inputs": shapes, "tasks": tasks}, indent=1)
    named = ", ".join(
        f'"{name}": {{{", ".join(f"{chr(34)}{key}{chr(34)}: ..." for key in keys)}}}' for name, keys in inputs.items()
    )
    return f'torch.export.load("{folder / PROGRAM}").module()({{{named}}})  # {", ".join(tasks)}'


def _describe(key: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The dtype of an input and its shape, in which rows and the length of padded sequences are free."""
    tensor = tensors[key]
    free = ["rows", "length"] if "mask" in tensors and tensor.ndim > 1 else ["rows"]
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": [*free, *tensor.shape[len(free) :]]}


def _compares_rows(model: MultimodalModel, name: str) -> bool:
    return "hard_negatives_from" in vars(model.tasks[name])


def merge_adapters(module: nn.Module) -> None:
    """Merge every adapter into its base weight, and remove it."""
    for name, layer in [(n, m) for n, m in module.named_modules() if isinstance(m, BaseTunerLayer)]:
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, layer.get_base_layer())


def _write_program(module: nn.Module, arguments: tuple[Any, ...], folder: Path) -> None:
    """Write a graph for any number of rows, and for any length of padded inputs.

    Raises:
        ConfigError: if torch cannot trace the module.
    """
    auto = torch.export.Dim.AUTO

    def free(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: free(v) for k, v in value.items()}
        return dict.fromkeys(range(min(value.ndim, 2)), auto)

    try:
        with torch.no_grad():
            program = torch.export.export(module, arguments, dynamic_shapes=tuple(free(a) for a in arguments))
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ConfigError(f"torch.export cannot trace {type(module).__name__}: {reason}") from error
    torch.export.save(program, folder / PROGRAM)
    save_file({n: t.contiguous() for n, t in module.state_dict().items()}, folder / WEIGHTS)
    write_json(folder / "config.json", {"program": PROGRAM, "weights": WEIGHTS})
