"""What a `_target_` takes, read off its source. Nothing is imported: most parts import torch, which takes seconds."""

import ast
import difflib
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

Fault = tuple[str, str]  # what is wrong, the mend


def fault_of(target: str, arguments: Iterable[str]) -> list[Fault]:
    """What is wrong with a class or function by its dotted path, called with these keyword arguments.

    Only what is certain is a fault: a name that an `__init__.py` passes on is taken to be there, and arguments of
    a class that inherits its constructor are not looked at.
    """
    names = target.split(".")
    if len(names) < 2 or not all(name.isidentifier() for name in names):
        return [("is not the dotted path of a class", "write package.module.Class")]
    if names[0] in ("__main__", "builtins"):
        return []
    found = _module(names)
    if found is None:
        return [(f"cannot be imported: there is no {names[0]}", "mend the path, or run where that can be imported")]
    path, rest = found
    if not rest:
        return [("is a module", f"name a class in it: {target}.Class")]
    if path is None or path.suffix != ".py":
        return []
    source = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return [(f"cannot be imported: {path}, line {error.lineno}: {error.msg}", "mend that line")]
    node = next((n for n in tree.body if isinstance(n, _DEFINITIONS) and n.name == rest[0]), None)
    if node is None:
        return _unless_it_may_be_there(target, rest[0], tree, source)
    return _unknown(node, arguments) if len(rest) == 1 else []


_DEFINITIONS = (ast.ClassDef, ast.FunctionDef)


def _module(names: list[str]) -> tuple[Path | None, list[str]] | None:
    """The file of the module that a dotted path begins with, and the names inside it."""
    spec = importlib.util.find_spec(names[0])  # imports nothing, because the name has no dot
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    file = Path(spec.origin) if spec.has_location and spec.origin is not None else None
    for place, name in enumerate(names[1:], start=1):
        nearest = [folder / name for folder in folders]
        inner = next((n for n in nearest if n.is_dir()), None)
        module = next((m for n in nearest if (m := n.with_suffix(".py")).is_file()), None)
        if inner is None and module is None:
            return file, names[place:]
        folders = [] if inner is None else [inner]
        file = module if inner is None else inner / "__init__.py"
        file = file if file is not None and file.is_file() else None
    return file, []


def _unless_it_may_be_there(target: str, name: str, tree: ast.Module, source: str) -> list[Fault]:
    if re.search(rf"\b({re.escape(name)}|__getattr__)\b|import \*", source):
        return []
    defined = [n.name for n in tree.body if isinstance(n, _DEFINITIONS)]
    passed_on = [a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names]
    module = target[: target.index(f".{name}")]
    near = difflib.get_close_matches(name, [*defined, *passed_on], n=1) or defined[:1]
    mend = f"did you mean {module}.{near[0]}?" if near else "mend the path"
    return [(f"cannot be imported: {module} has no {name}", mend)]


def _unknown(node: ast.ClassDef | ast.FunctionDef, arguments: Iterable[str]) -> list[Fault]:
    """Arguments that the constructor or the function does not take."""
    function: ast.FunctionDef | None
    if isinstance(node, ast.ClassDef):
        function = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    else:
        function = node
    if function is None or function.args.kwarg is not None or node.decorator_list or function.decorator_list:
        return []
    taken = [a.arg for a in [*function.args.args, *function.args.kwonlyargs] if a.arg not in ("self", "cls")]
    faults = []
    for name in arguments:
        if name not in taken:
            near = difflib.get_close_matches(name, taken, n=1)
            mend = f"did you mean {near[0]}?" if near else f"it takes {', '.join(taken) or 'nothing'}"
            faults.append((f"does not take {name}", mend))
    return faults
