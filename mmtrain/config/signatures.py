"""The arguments of a `_target_`, read from its source. Nothing is imported, because importing torch takes seconds."""

import ast
import difflib
import functools
import importlib.util
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

Fault = tuple[str, str]  # the problem and the fix


def fault_of(target: str, arguments: Iterable[str], *, added: Iterable[str] | None) -> list[Fault]:
    """Faults of a call of a class or function with keyword arguments.

    Args:
        target: the dotted path.
        arguments: names of the arguments in the configuration.
        added: names of the arguments that the program adds; None if they are not known.

    Only certain faults are reported. A name that an `__init__.py` defines in another way than by an import counts as
    defined. Arguments of a class are not checked if it has several bases and no constructor of its own.
    """
    names = target.split(".")
    if len(names) < 2 or not all(name.isidentifier() for name in names):
        return [("not the dotted path of a class", "write package.module.Class")]
    if names[0] in ("__main__", "builtins"):
        return []
    result = module_of(names)
    if result is None:
        return [(f"cannot be imported: there is no {names[0]}", "correct the path, or run where it can be imported")]
    path, folders, rest = result
    if not rest:
        return [("a module, not a class", f"name a class in it: {target}.Class")]
    if path is None and _modules(folders) and not _files(folders, rest[0]):
        return _explain_missing(target, rest[0], [], _modules(folders))
    if path is None or path.suffix != ".py":
        return []
    try:
        tree = parsed(path.read_bytes())
    except SyntaxError as error:
        return [(f"cannot be imported: {path}, line {error.lineno}: {error.msg}", "correct that line")]
    node = next((n for n in tree.body if isinstance(n, _DEFINITIONS) and n.name == rest[0]), None)
    passed_on = _reexported_from(tree.body, rest[0])
    if node is None and passed_on is not None and len(rest) == 1:
        return fault_of(passed_on, arguments, added=None)  # the arguments that the program adds are not known here
    if node is None:
        source = path.read_text(encoding="utf-8", errors="replace")
        return [] if _may_exist(rest[0], source) else _explain_missing(target, rest[0], tree.body, _modules(folders))
    function, body = _function(rest[0], tree.body) if len(rest) == 1 else (None, [])
    taken = None if function is None else _arguments(function, body)
    if function is None or taken is None:
        return []
    given = list(arguments)
    return [*_unknown(function, taken, given), *([] if added is None else _missing(taken, [*given, *added]))]


def parameters_of(target: str) -> list[str]:
    """Arguments of a class's constructor, even if it is decorated; empty if its source cannot be read."""
    path, _, rest = module_of(target.split(".")) or (None, [], [])
    if path is None or path.suffix != ".py" or len(rest) != 1:
        return []
    body = parsed(path.read_bytes()).body
    inside = next((n.body for n in body if isinstance(n, ast.ClassDef) and n.name == rest[0]), [])
    made = next((n for n in inside if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    return [] if made is None else [a.arg for a in (*made.args.args, *made.args.kwonlyargs) if a.arg != "self"]


def is_defined(target: str) -> bool:
    """Whether a dotted path leads to a class, a function or a class's own method that its package defines.

    `mine.Encoder` does, even if `mine/__init__.py` imports it from `mine.encoder`. `mine.os.system` does not, because
    `mine` only imports it. Also true if there is no such module, because importing it raises an error.
    """
    names = target.split(".")
    if len(names) < 2 or not all(name.isidentifier() for name in names):
        return False
    return _is_defined(names, depth=0)


_MAX_IMPORTS = 10  # from one module of a package to the next


def _is_defined(names: list[str], depth: int) -> bool:
    result = module_of(names)
    if result is None:
        return True
    path, _, rest = result
    if path is None or path.suffix != ".py" or not rest:
        return len(rest) == 1
    try:
        body = parsed(path.read_bytes()).body
    except SyntaxError:
        return False
    module = names[: -len(rest)]
    node = next((n for n in body if isinstance(n, _DEFINITIONS) and n.name == rest[0]), None)
    if node is not None:
        methods = (
            [n.name for n in node.body if isinstance(n, ast.FunctionDef)] if isinstance(node, ast.ClassDef) else []
        )
        return rest[1:] == [] or (len(rest) == 2 and rest[1] in methods)
    package = module if path.name == "__init__.py" else module[:-1]
    sources = [
        [*source, alias.name, *rest[1:]]
        for statement in body
        if isinstance(statement, ast.ImportFrom) and (source := _source(statement, package))[:1] == names[:1]
        for alias in statement.names
        if (alias.asname or alias.name) == rest[0]
    ]
    return depth < _MAX_IMPORTS and any(_is_defined(source, depth + 1) for source in sources)


def _source(statement: ast.ImportFrom, package: list[str]) -> list[str]:
    """The module in a `from ... import` statement of a package."""
    named = statement.module.split(".") if statement.module else []
    return named if statement.level == 0 else [*package[: len(package) - statement.level + 1], *named]


def _reexported_from(body: list[ast.stmt], name: str) -> str | None:
    """The original path of a name that a module imports under the same name."""
    froms = [n for n in body if isinstance(n, ast.ImportFrom) and n.level == 0 and n.module]
    return next((f"{n.module}.{name}" for n in froms for a in n.names if a.name == name == (a.asname or a.name)), None)


_DEFINITIONS = (ast.ClassDef, ast.FunctionDef)

parsed = functools.lru_cache(maxsize=512)(ast.parse)  # by content: a changed file is parsed again


def module_of(names: list[str]) -> tuple[Path | None, list[Path], list[str]] | None:
    """The file of the module that a dotted path begins with, the folders of a package, and the names in the module."""
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
            return file, folders, names[place:]
        folders = [] if inner is None else [inner]
        file = module if inner is None else inner / "__init__.py"
        file = file if file is not None and file.is_file() else None
    return file, folders, []


def _files(folders: list[Path], name: str) -> list[Path]:
    return [file for folder in folders for file in folder.glob(f"{name}.*")]


def _modules(folders: list[Path]) -> list[str]:
    """Modules in the folders of a package."""
    return sorted(file.stem for file in _files(folders, "*") if file.suffix == ".py" and file.stem != "__init__")


def _may_exist(name: str, source: str) -> bool:
    return re.search(rf"\b({re.escape(name)}|__getattr__)\b|import \*", source) is not None


def _explain_missing(target: str, name: str, body: list[ast.stmt], modules: list[str]) -> list[Fault]:
    defined = [n.name for n in body if isinstance(n, _DEFINITIONS)]
    passed_on = [a.asname or a.name for n in body if isinstance(n, ast.ImportFrom) for a in n.names]
    module = target[: target.index(f".{name}")]
    near = difflib.get_close_matches(name, [*defined, *passed_on, *modules], n=1) or defined[:1]
    fix = f"did you mean {module}.{near[0]}?" if near else "correct the path"
    return [(f"cannot be imported: {module} has no {name}", fix)]


def _called(node: ast.ClassDef | ast.FunctionDef) -> ast.FunctionDef | None:
    """The function that receives the arguments; None if it cannot be found in the source."""
    function: ast.FunctionDef | None
    if isinstance(node, ast.ClassDef):
        function = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    else:
        function = node
    return None if function is None or node.decorator_list or function.decorator_list else function


def flattened_class(hint: ast.expr | None) -> ast.expr | None:
    """The class in an annotation `Flattened[Class]`; None for another annotation."""
    if isinstance(hint, ast.Subscript) and ast.unparse(hint.value).split(".")[-1] == "Flattened":
        return hint.slice
    return None


def _arguments(function: ast.FunctionDef, body: list[ast.stmt]) -> dict[str, bool] | None:
    """Arguments, and whether each is required; those of its class in place of a `Flattened` one.

    Args:
        function: a constructor or another function.
        body: the statements of its module.

    Returns:
        None if the constructor of a `Flattened` class cannot be found.
    """
    args = function.args
    named = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(named) - len(args.defaults)), *args.defaults, *args.kw_defaults]
    pairs = list(zip([*named, *args.kwonlyargs], defaults, strict=True))
    taken: dict[str, bool] = {}
    for argument, default in pairs[1 if function.name == "__init__" else 0 :]:  # without self
        part = flattened_class(argument.annotation)
        if part is None:
            taken[argument.arg] = default is None
            continue
        constructor, body_of_part = _function(ast.unparse(part), body)
        of_part = None if constructor is None else _arguments(constructor, body_of_part)
        if of_part is None:
            return None
        taken |= of_part
    return taken


def _function(name: str, body: list[ast.stmt], depth: int = 0) -> tuple[ast.FunctionDef | None, list[ast.stmt]]:
    """The function that receives the arguments of a name that a module defines or imports, and its module's statements.

    Inherited constructors are followed if there is one base. None if it cannot be found in the source.
    """
    node = next((n for n in body if isinstance(n, _DEFINITIONS) and n.name == name), None)
    function = None if node is None else _called(node)
    if function is not None or depth > _MAX_IMPORTS:
        return function, body
    if node is None:
        passed_on = _reexported_from(body, name)
        path, _, rest = (module_of(passed_on.split(".")) if passed_on else None) or (None, [], [])
        if path is not None and path.suffix == ".py" and rest == [name]:
            with suppress(SyntaxError):
                return _function(name, parsed(path.read_bytes()).body, depth + 1)
    elif isinstance(node, ast.ClassDef) and not (node.decorator_list or node.keywords):
        own = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
        match node.bases:
            case [ast.Name(id=base)] if not own & {"__init__", "__new__"}:
                return _function(base, body, depth + 1)
    return None, body


def _missing(taken: dict[str, bool], given: list[str]) -> list[Fault]:
    """Arguments without a default that are not set."""
    missing = [name for name, needed in taken.items() if needed and name not in given]
    return [(f"needs {', '.join(missing)}", f"set {missing[0]} next to _target_")] if missing else []


def _unknown(function: ast.FunctionDef, taken: dict[str, bool], arguments: Iterable[str]) -> list[Fault]:
    """Arguments that the constructor or the function does not accept."""
    if function.args.kwarg is not None:
        return []
    names = [name for name in taken if name not in [a.arg for a in function.args.posonlyargs]]
    faults = []
    for name in arguments:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            fix = f"did you mean {near[0]}?" if near else f"it takes {', '.join(names) or 'nothing'}"
            faults.append((f"does not take {name}", fix))
    return faults
