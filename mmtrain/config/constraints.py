"""The values that a constructor allows, read from the annotations of its source. Nothing is imported.

`Literal["mean", "max"]` allows two words. `Annotated[int, Ge(1)]` allows integers from 1 on. The bounds are those
of the `annotated_types` package. Aliases such as `mmtrain.annotations.PositiveInt` are followed through modules.
A type that is not understood allows everything.
"""

import ast
import math
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from mmtrain.config.signatures import flattened_class, module_of, parsed

_MAX_IMPORTS = 10  # from one module to the next
_CONTAINERS = {
    **dict.fromkeys(("Sequence", "list", "List", "tuple", "Tuple", "Iterable", "Collection", "set", "Set"), "list"),
    **dict.fromkeys(("Mapping", "dict", "Dict", "MutableMapping"), "mapping"),
}


@dataclass(frozen=True)
class Choice:
    """One of a few values, as of a `Literal`."""

    values: tuple[Any, ...]

    def allows(self, value: Any) -> bool:
        """Whether it is one of them; 1 is not true."""
        return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in self.values)

    def __str__(self) -> str:
        return ", ".join(_written(value) for value in self.values)


@dataclass(frozen=True)
class Number:
    """A number in a range.

    Attributes:
        integer: whether fractions are excluded.
        low, high: the bounds.
        open_low, open_high: whether a bound itself is excluded.
    """

    integer: bool
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def allows(self, value: Any) -> bool:
        """Whether it is such a number. True, NaN and infinity are none."""
        if isinstance(value, bool) or not isinstance(value, int if self.integer else int | float):
            return False
        if isinstance(value, float) and not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def nearest(self, value: Any) -> int | float | None:
        """The closest allowed number; None if there is none, as above 0."""
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            return None
        bounded = max(self.low, min(self.high, value))
        rounded = round(bounded) if self.integer and abs(bounded) != math.inf else bounded
        return rounded if self.allows(rounded) else None

    def __str__(self) -> str:
        kind = "an integer" if self.integer else "a number"
        low, high = _plain(self.low), _plain(self.high)
        if math.isfinite(self.low) and math.isfinite(self.high) and not (self.open_low or self.open_high):
            return f"{kind} between {low} and {high}"
        above = f"above {low}" if self.open_low else f"of at least {low}"
        below = f"below {high}" if self.open_high else f"of at most {high}"
        bounds = [b for b, limit in ((above, self.low), (below, self.high)) if math.isfinite(limit)]
        return " ".join([kind, " and ".join(bounds)]).strip()


@dataclass(frozen=True)
class Plain:
    """A value of a simple type without a range: `None`, a word, true or false."""

    name: str

    def allows(self, value: Any) -> bool:
        """Whether it is of the type; a number may be a word, too."""
        if self.name == "None":
            return value is None
        return isinstance(value, bool) if self.name == "bool" else True  # Hydra reads a word such as 12 as a number

    def __str__(self) -> str:
        return {"None": "null", "bool": "true or false", "str": "a word"}[self.name]


@dataclass(frozen=True)
class Container:
    """A list or a mapping, and what each of its values may be.

    Attributes:
        kind: list or mapping.
        items: what each value may be.
        min_length, max_length: the number of values.
    """

    kind: str
    items: "Constraint"
    min_length: int = 0
    max_length: float = math.inf

    def allows(self, value: Any) -> bool:
        """Whether it is such a list or mapping."""
        if self.kind == "mapping":
            return isinstance(value, Mapping) and all(self.items.allows(v) for v in value.values())
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        return self.min_length <= len(value) <= self.max_length and all(map(self.items.allows, value))

    def __str__(self) -> str:
        low, high = self.min_length, self.max_length
        count = f"{low} or {high} " if high == low + 1 else f"{low} " if low == high else ""
        name = f"a list of {count}values" if self.kind == "list" else "keys with values"
        if self.items.is_unknown:
            return name
        words = self.items.words
        each = f"one of {', '.join(words)}" if words and not self.items.without_words else str(self.items)
        return f"{name}, each {each}"


@dataclass(frozen=True)
class Constraint:
    """What an argument may be: any of several alternatives. No alternative: everything."""

    alternatives: tuple[Choice | Number | Plain | Container, ...] = ()

    @property
    def is_unknown(self) -> bool:
        """Whether everything is allowed."""
        return not self.alternatives

    def allows(self, value: Any) -> bool:
        """Whether the constructor takes a value."""
        return self.is_unknown or any(each.allows(value) for each in self.alternatives)

    def nearest(self, value: Any) -> int | float | None:
        """The closest allowed number; None if there is none."""
        numbers = (each.nearest(value) for each in self.alternatives if isinstance(each, Number))
        return next((number for number in numbers if number is not None), None)

    @property
    def words(self) -> list[str]:
        """The words that it allows, as they are written."""
        values = (value for each in self.alternatives if isinstance(each, Choice) for value in each.values)
        return list(dict.fromkeys(map(_written, values)))

    @property
    def is_integer(self) -> bool:
        """Whether each number that it allows is an integer."""
        numbers = [each for each in self.alternatives if isinstance(each, Number)]
        return bool(numbers) and all(each.integer for each in numbers)

    @property
    def in_mappings(self) -> "Constraint | None":
        """What each value of a mapping may be; None if it allows no mapping."""
        kinds = [each.items for each in self.alternatives if isinstance(each, Container) and each.kind == "mapping"]
        return kinds[0] if kinds else None

    @property
    def words_in_lists(self) -> list[str]:
        """The words that a list may have."""
        return [word for each in self.alternatives if isinstance(each, Container) for word in each.items.words]

    @property
    def without_words(self) -> list[Choice | Number | Plain | Container]:
        """The other alternatives."""
        return [each for each in self.alternatives if not isinstance(each, Choice)]

    def __str__(self) -> str:
        return " or ".join(map(str, self.alternatives))


@cache
def constraints_of(target: str) -> Mapping[str, Constraint]:
    """What a class or function takes, by argument.

    Args:
        target: its dotted path. Inherited constructors are followed. The arguments of a dataclass are its fields.

    Returns:
        Only arguments that restrict something. Empty if the source cannot be read.
    """
    result = _definition(target.split("."), 0)
    if result is None:
        return {}
    read = {name: module.constraint(hint) for name, hint, module in _arguments(*result, 0)}
    return {name: constraint for name, constraint in read.items() if not constraint.is_unknown}


@dataclass(frozen=True)
class _Module:
    """A module's top-level statements and its dotted path."""

    names: tuple[str, ...]
    is_package: bool
    body: tuple[ast.stmt, ...]

    def constraint(self, hint: ast.expr | None, depth: int = 0) -> Constraint:
        """What an annotation allows."""
        alternatives: list[Choice | Number | Plain | Container] = []
        for each in _alternatives(hint):
            allowed = self._one(each, depth)
            if allowed.is_unknown:
                return allowed
            alternatives.extend(allowed.alternatives)
        return Constraint(tuple(alternatives))

    def _one(self, hint: ast.expr | None, depth: int) -> Constraint:
        match hint:
            case ast.Constant(value=None):
                return Constraint((Plain("None"),))
            case ast.Constant(value=str(quoted)):
                parsed_hint = _parsed_hint(quoted)
                return Constraint() if parsed_hint is None else self.constraint(parsed_hint, depth)
            case ast.Subscript(value=head, slice=inside):
                return self._subscript(_last(head), inside, depth)
            case ast.Name() | ast.Attribute():
                return self._named(hint, depth)
        return Constraint()

    def _subscript(self, head: str, inside: ast.expr, depth: int) -> Constraint:
        parts = list(inside.elts) if isinstance(inside, ast.Tuple) else [inside]
        if head == "Literal":
            return self._literal(parts, depth)
        if head == "Annotated":
            return Constraint(tuple(_bounded(a, parts[1:]) for a in self.constraint(parts[0], depth).alternatives))
        if head in _CONTAINERS:
            of_items = [p for p in parts if not (isinstance(p, ast.Constant) and p.value is Ellipsis)]
            items = [self.constraint(p, depth) for p in (of_items[1:] if _CONTAINERS[head] == "mapping" else of_items)]
            known = all(not item.is_unknown for item in items)
            each = dict.fromkeys(allowed for item in items for allowed in item.alternatives) if known else ()
            is_fixed = head in ("tuple", "Tuple") and len(of_items) == len(parts)
            length = {"min_length": len(parts), "max_length": len(parts)} if is_fixed else {}
            return Constraint((Container(_CONTAINERS[head], Constraint(tuple(each)), **length),))
        return Constraint()

    def _literal(self, parts: Sequence[ast.expr], depth: int) -> Constraint:
        """The values of a `Literal`, also of an alias of another one inside it."""
        values: list[Any] = []
        for part in parts:
            if isinstance(part, ast.Name | ast.Attribute | ast.Subscript):
                inner = self.constraint(part, depth).alternatives
                values.extend(v for a in inner if isinstance(a, Choice) for v in a.values)
                if not inner:
                    return Constraint()
            else:
                values.append(_value(part))
        return Constraint() if _UNKNOWN in values else Constraint((Choice(tuple(values)),))

    def _named(self, hint: ast.Name | ast.Attribute, depth: int) -> Constraint:
        name = _last(hint)
        if isinstance(hint, ast.Name):
            alias = next((value for n in self.body if (value := _assigned(n, name)) is not None), None)
            if alias is not None:
                return self.constraint(alias, depth + 1) if depth < _MAX_IMPORTS else Constraint()
            if name in ("int", "float"):
                return Constraint((Number(integer=name == "int"),))
            if name in ("bool", "str"):
                return Constraint((Plain(name),))
            source = None if name in _CONTAINERS else self.source_of(name)
            if source is not None:
                return _constraint_at(source, depth)
        elif (dotted := self._dotted(hint)) is not None:
            return _constraint_at(dotted, depth)
        if name in _CONTAINERS:
            return Constraint((Container(_CONTAINERS[name], Constraint()),))
        return Constraint()

    def source_of(self, name: str) -> list[str] | None:
        """The dotted path that a name was imported from."""
        package = self.names if self.is_package else self.names[:-1]
        for node in self.body:
            if isinstance(node, ast.ImportFrom):
                base = list(package[: len(package) - node.level + 1]) if node.level else []
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return [*base, *(node.module.split(".") if node.module else []), alias.name]
        return None

    def _dotted(self, hint: ast.Attribute) -> list[str] | None:
        """The dotted path of a name that is an attribute of an imported module."""
        *module, name = ast.unparse(hint).split(".")
        for node in self.body:
            for alias in node.names if isinstance(node, ast.Import) else []:
                if (alias.asname or alias.name) == ".".join(module):
                    return [*alias.name.split("."), name]
        source = self.source_of(module[0])
        return None if source is None else [*source, *module[1:], name]


# nothing that restricts a knob comes from these
_STANDARD = ("typing", "collections", "typing_extensions", "pathlib", "torch", "numpy", "pytorch_lightning")
_UNKNOWN = object()


def _parsed_hint(quoted: str) -> ast.expr | None:
    """An annotation that is written as a string; None if it is no Python."""
    try:
        return ast.parse(quoted, mode="eval").body
    except SyntaxError:
        return None


def _constraint_at(names: Sequence[str], depth: int) -> Constraint:
    """What a type allows that another module defines."""
    module = _module_at(tuple(names[:-1])) if names[0] not in _STANDARD and depth < _MAX_IMPORTS else None
    return Constraint() if module is None else module.constraint(ast.Name(names[-1]), depth + 1)


def _alternatives(hint: ast.expr | None) -> Iterator[ast.expr | None]:
    """The parts of a union, however it is written."""
    if isinstance(hint, ast.BinOp) and isinstance(hint.op, ast.BitOr):
        yield from _alternatives(hint.left)
        yield from _alternatives(hint.right)
    elif isinstance(hint, ast.Subscript) and _last(hint.value) in ("Union", "Optional"):
        inside = hint.slice
        for part in inside.elts if isinstance(inside, ast.Tuple) else [inside]:
            yield from _alternatives(part)
        if _last(hint.value) == "Optional":
            yield ast.Constant(None)
    else:
        yield hint


def _bounded(
    allowed: Choice | Number | Plain | Container, metadata: Sequence[ast.expr]
) -> Choice | Number | Plain | Container:
    """A number with the bounds of an `Annotated`, or a list with its length; anything else as it is."""
    if not isinstance(allowed, Number | Container):
        return allowed
    bounds: dict[str, Any] = {}
    for kind, value in _limits(metadata):
        match kind:
            case "ge" | "gt":
                bounds |= {"low": value, "open_low": kind == "gt"}
            case "le" | "lt":
                bounds |= {"high": value, "open_high": kind == "lt"}
            case "min_length" | "max_length":
                bounds[kind] = value
    known = {field.name for field in fields(allowed)}
    return replace(allowed, **{name: value for name, value in bounds.items() if name in known})


def _limits(metadata: Sequence[ast.expr]) -> Iterator[tuple[str, Any]]:
    """The limits that calls such as Ge(1), Interval(gt=0, le=1) or Len(1, 2) set."""
    for node in metadata:
        if not isinstance(node, ast.Call):
            continue
        names = _POSITIONS.get(_last(node.func), (_last(node.func).lower(),))
        given = dict(zip(names, node.args, strict=False)) | {k.arg: k.value for k in node.keywords if k.arg}
        for kind, limit in given.items():
            value = _value(limit)
            if value is not _UNKNOWN and value is not None:
                yield kind, value


_POSITIONS = {"Len": ("min_length", "max_length"), "MinLen": ("min_length",), "MaxLen": ("max_length",)}


_OPERATIONS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def _value(node: ast.expr) -> Any:
    """A constant, also a computed one such as 2**32 - 1."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _value(node.left), _value(node.right)
        return _UNKNOWN if _UNKNOWN in (left, right) else _OPERATIONS[type(node.op)](left, right)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _UNKNOWN


def _last(node: ast.expr) -> str:
    """The last word of a dotted name."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _assigned(node: ast.stmt, name: str) -> ast.expr | None:
    """The value that a statement gives to a name."""
    if isinstance(node, ast.Assign):
        return node.value if name in [t.id for t in node.targets if isinstance(t, ast.Name)] else None
    if isinstance(node, ast.AnnAssign):
        return node.value if isinstance(node.target, ast.Name) and node.target.id == name else None
    if sys.version_info >= (3, 12) and isinstance(node, ast.TypeAlias):
        return node.value if node.name.id == name else None
    return None


@cache
def _module_at(names: tuple[str, ...]) -> _Module | None:
    """A module by its dotted path; None if there is no source of it."""
    path, _, rest = module_of(list(names)) or (None, [], []) if names else (None, [], [])
    if path is None or path.suffix != ".py" or rest:
        return None
    try:
        body = parsed(path.read_bytes()).body
    except (SyntaxError, OSError):
        return None
    return _Module(names, path.name == "__init__.py", tuple(_statements(body)))


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, also those inside `if TYPE_CHECKING` and `try`."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _statements([*node.body, *node.orelse])


def _definition(names: list[str], depth: int) -> tuple[ast.ClassDef | ast.FunctionDef, _Module] | None:
    """A class or function by its dotted path, also through the import of a package, and the module that defines it."""
    module = _module_at(tuple(names[:-1])) if len(names) > 1 and all(n.isidentifier() for n in names) else None
    if module is None or depth > _MAX_IMPORTS:
        return None
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == names[-1]:
            return node, module
    source = module.source_of(names[-1])
    return None if source is None else _definition(source, depth + 1)


def _arguments(
    node: ast.ClassDef | ast.FunctionDef, module: _Module, depth: int
) -> Iterator[tuple[str, ast.expr | None, _Module]]:
    """Arguments with their annotations, and the module whose names these use."""
    if isinstance(node, ast.FunctionDef):
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            part = flattened_class(argument.annotation)
            result = None if part is None else _base(part, module)
            if result is None:
                yield argument.arg, argument.annotation, module
            else:
                yield from _arguments(*result, depth + 1)
        return
    function = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if function is not None:
        yield from _arguments(function, module, depth)
        return
    for base in node.bases if depth < _MAX_IMPORTS else []:
        result = _base(base, module)
        if result is not None:
            yield from _arguments(*result, depth + 1)
    decorators = {_last(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list}
    if "dataclass" in decorators or any(_last(base) == "NamedTuple" for base in node.bases):
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                yield field.target.id, field.annotation, module


def _base(base: ast.expr, module: _Module) -> tuple[ast.ClassDef | ast.FunctionDef, _Module] | None:
    """The class that another one inherits from, where it can be read."""
    local = next((n for n in module.body if isinstance(n, ast.ClassDef) and n.name == _last(base)), None)
    if local is not None:
        return local, module
    source = module.source_of(_last(base))
    return None if source is None or source[0] in _STANDARD else _definition(source, 0)


def _written(value: Any) -> str:
    """As YAML has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _plain(number: float) -> str:
    return str(int(number)) if math.isfinite(number) and float(number).is_integer() else str(number)
