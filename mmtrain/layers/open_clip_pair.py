"""Pairs of towers of open_clip, as it loads them: any of its architectures, tags, files, hub names and folders.

A tower gives one token, its vector in the shared space, because the architectures have no other output in common. The
tokenizer is open_clip's own (`mmtrain.data.tokenizers.open_clip`), and so are texts: padded to the context.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmtrain.errors import reason_of
from mmtrain.layers.foreign_model import drop, unused_parameters
from mmtrain.layers.pair_projection import PairProjection, SharedSpace
from mmtrain.types import Features

PREFIX = "open_clip:"  # of tokenizers
MISSING = "encoder=open_clip needs the package open-clip-torch; install it with: pip install 'mmtrain[open_clip]'"
_INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
# parts behind the blocks of a tower, which belong to no layer
_TOP = ("ln_post", "ln_final", "proj", "text_projection", "norm.", "fc_norm", "attn_pool", "head", "attnpool")
_LISTED = 30


class OpenCLIPTower(nn.Module):
    """One tower; its only token is the vector in the shared space, not normalized.

    Args:
        name: of an architecture, or hf-hub:NAME, or local-dir:FOLDER.
        pretrained: a tag, or a file; None for random weights, and where the name has weights.
        side: which tower.

    Attributes:
        dim: width of the shared space.
        projection: into the shared space, which is the identity; None if no task reads it.

    Raises:
        ValueError: if open_clip is not installed, or cannot load it.
    """

    def __init__(self, *, name: str, pretrained: str | None, side: Literal["image", "text"]) -> None:
        super().__init__()
        self.name, self.side = name, side
        model = _create(name, pretrained, load=True)
        config = _config(name)
        scale, bias = model.logit_scale, getattr(model, "logit_bias", None)
        self.dim: int = config["embed_dim"]
        self.projection: PairProjection | None = PairProjection(
            pooling="class",
            head=nn.Identity(),
            dim=self.dim,
            logit_scale=float(scale.detach()),
            logit_bias=None if bias is None else float(bias.detach()),
            checkpoint=f"{name} {pretrained}",
        )
        size = preprocessing_of(name, pretrained)["size"]
        example: Tensor
        if side == "image":
            example = torch.zeros(1, 3, size, size)
        else:
            example = torch.zeros(1, context_of(name), dtype=torch.long)
        self.net: Any = model.eval()
        with torch.enable_grad():
            unused = unused_parameters(model, self._encode(example))
        drop(model, unused)
        model.train()

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the parts before the blocks, then the blocks."""
        lists = [m for m in self.net.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1]
        blocks = max(lists, key=lambda m: sum(p.numel() for p in m.parameters()))
        inside = {id(p) for p in blocks.parameters()}
        stem = [p for n, p in self.net.named_parameters() if id(p) not in inside and not any(t in n for t in _TOP)]
        return [tuple(stem), *((block,) for block in blocks)]

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode images (B, 3, H, W), normalized, or token ids (B, context), int64, to tokens (B, 1, dim)."""
        tokens = self._encode(values).unsqueeze(1)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def _encode(self, values: Tensor) -> Tensor:
        encode = self.net.encode_image if self.side == "image" else self.net.encode_text
        vectors: Tensor = encode(values)
        return vectors


def shared_space_of(name: str, pretrained: str | None) -> SharedSpace:
    """Return the space of a pair; SigLIP is recognized by its bias. No weights are read."""
    config = _config(name)
    return SharedSpace(int(config["embed_dim"]), "sigmoid" if "init_logit_bias" in config else "info_nce")


def context_of(name: str) -> int:
    """Return the number of tokens of each text."""
    return int(_config(name).get("text_cfg", {}).get("context_length", 77))


@lru_cache(maxsize=4)
def preprocessing_of(name: str, pretrained: str | None) -> Mapping[str, Any]:
    """Return keys of data.inputs.image with the evaluation transforms of open_clip.

    Raises:
        ValueError: if images are padded, or not square.
    """
    wanted = dict(_create(name, pretrained, load=False).visual.preprocess_cfg)
    size = wanted["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width or wanted["resize_mode"] not in ("shortest", "squash"):
        raise ValueError(
            f"name = {name} was trained on images of {height} x {width} (resize_mode {wanted['resize_mode']});"
            " the image input accepts squares without borders; choose another model"
        )
    interpolation = wanted["interpolation"] if wanted["interpolation"] in _INTERPOLATIONS else "bicubic"
    return {
        "size": height,
        "resize_size": height if wanted["resize_mode"] == "shortest" else [height, height],
        "interpolation": interpolation,
        "mean": list(wanted["mean"]),
        "std": list(wanted["std"]),
        "crop_offset": "round",
        "resize_backend": "open_clip",
    }


def _config(name: str) -> dict[str, Any]:
    """Return the configuration of an architecture.

    Raises:
        ValueError: if there is none of this name.
    """
    open_clip = _library()
    with _explained(name, None):
        config = open_clip.get_model_config(name)
    if config is None:
        import difflib

        known = open_clip.list_models()
        near = difflib.get_close_matches(name, known, n=3) or known[:_LISTED]
        raise ValueError(f"name = {name} is no architecture of open_clip; set it to {', '.join(near)}")
    return dict(config)


def _create(name: str, pretrained: str | None, *, load: bool) -> Any:
    open_clip = _library()
    _config(name)
    given = pretrained
    if pretrained is not None and Path(pretrained).expanduser().exists():
        given = str(Path(pretrained).expanduser())
    tags = open_clip.list_pretrained_tags_by_model(name)
    if given is not None and ":" not in name and given not in tags and not Path(given).is_file():
        raise ValueError(
            f"pretrained = {pretrained} is neither a file nor a tag of {name}; set it to a file"
            + (f", or to {', '.join(tags)}" if tags else "")
        )
    level = logging.root.level
    with _explained(name, pretrained):
        try:
            logging.root.setLevel(logging.ERROR)  # open_clip warns of random weights, which are intended here
            return open_clip.create_model(name, given, load_weights=load and (given is not None or ":" in name))
        finally:
            logging.root.setLevel(level)


@contextmanager
def _explained(name: str, pretrained: str | None) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"name = {name}, pretrained = {pretrained} cannot be loaded by open_clip: {reason_of(error)}\n"
            "    set name to an architecture and pretrained to a tag or a file of it, or name to local-dir:FOLDER"
        ) from error


def _library() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise ValueError(MISSING) from error
    return open_clip
