"""Models of other libraries: which parts affect the tokens, and what their layers are."""

import torch
from torch import Tensor, nn


@torch.enable_grad()
def unused_parameters(net: nn.Module, tokens: Tensor) -> list[str]:
    """Return the names of the largest modules, and of single parameters, that do not affect the tokens.

    Args:
        net: the model; a copy on the meta device is sufficient.
        tokens: its output, with the autograd graph.
    """
    learning = [p for p in net.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(tokens.sum(), learning, allow_unused=True)
    idle = {id(p) for p, gradient in zip(learning, gradients, strict=True) if gradient is None}

    def search(module: nn.Module, prefix: str) -> list[str]:
        results = [prefix + name for name, p in module.named_parameters(recurse=False) if id(p) in idle]
        for name, child in module.named_children():
            inside = [id(p) in idle for p in child.parameters()]
            results += [prefix + name] if inside and all(inside) else search(child, f"{prefix}{name}.")
        return results

    return search(net, "")


def drop(net: nn.Module, names: list[str]) -> None:
    """Remove modules and parameters. An identity replaces each module, for callers that still call it."""
    for name in names:
        owner, _, last = name.rpartition(".")
        parent = net.get_submodule(owner)
        setattr(parent, last, nn.Identity() if last in dict(parent.named_children()) else None)


def stem_and_blocks(net: nn.Module) -> list[tuple[nn.Module | nn.Parameter, ...]]:
    """Return the layers of a model with a single list of blocks; modules registered before the list are the stem."""
    stem: list[nn.Module | nn.Parameter] = []
    module = net
    while not isinstance(module, nn.ModuleList | nn.Sequential):
        stem += module.parameters(recurse=False)
        children = list(module.children())
        holders = [child for child in children if any(_is_list(m) for m in child.modules())]
        assert holders, f"{type(net).__name__} has no list of blocks"
        before = children[: children.index(holders[0])]
        stem += [child for child in before if next(child.parameters(), None) is not None]
        module = holders[0]
    return [tuple(stem), *((block,) for block in module.children())]


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.Sequential)
