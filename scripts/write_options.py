"""Write the tables of options in docs/ from the YAML files, the docstrings and the annotations of the constructors.

python scripts/write_options.py
"""

import ast
import math
import re
from pathlib import Path
from typing import Any

import yaml

from mmtrain.config.compose import config_dir
from mmtrain.config.constraints import Constraint, Container, Number, constraints_of
from mmtrain.config.rules_values import LIBRARIES
from mmtrain.config.settings import BY_TARGET, ModelConfig
from mmtrain.config.signatures import module_of, parsed

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "options.md"
GROUPS = (
    *("encoder/*", "fusion", "connector", "task", "balance", "modality_balance", "optimizer", "schedule", "peft"),
    *("callbacks", "logger", "input", "target"),
)
# a table of the options of a group alone, in another page: between these lines
MARKED = re.compile(r"(<!-- options of (\S+): python scripts/write_options.py -->\n\n).*?(\n<!-- end -->)", re.DOTALL)
INTRODUCTION = """# Options

Every option of every group of components, with its knobs. `python scripts/write_options.py` writes this page from the
YAML files in `configs/`, the docstrings of the modules and the annotations of the constructors. The checks of a
configuration read the same annotations.

A knob is shown with its default and the values that it allows. `[0, 1)` is a range that includes 0 and excludes 1.
Choose an option by its group, and set its knobs by the key of the group:

    python train.py fusion=mlb fusion.joint_dim=512 fusion.missing=learned
"""


def page() -> str:
    """The page of all groups."""
    return "\n".join([INTRODUCTION, *(section for group in GROUPS for section in _sections(group))])


def with_tables(text: str) -> str:
    """A page whose tables of options are up to date."""
    return MARKED.sub(lambda found: f"{found[1]}{_short_table(found[2])}{found[3]}", text)


def _sections(group: str) -> list[str]:
    folders = sorted(folder for folder in config_dir().glob(group) if folder.is_dir())
    names = [str(folder.relative_to(config_dir())) for folder in folders]
    return [f"## `{name}=`\n\n{_table(name)}" for name in names]


def _table(group: str) -> str:
    rows = ["| option | what it is | knobs |", "|---|---|---|"]
    for path in sorted((config_dir() / group).glob("*.yaml")):
        node = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        rows.append(f"| `{path.stem}` | {_summary(path, node)} | {_knobs(node)} |")
    return "\n".join(rows) + "\n"


def _short_table(group: str) -> str:
    rows = [f"| `{group}=` | what it is |", "|---|---|"]
    for path in sorted((config_dir() / group).glob("*.yaml")):
        rows.append(f"| `{path.stem}` | {_summary(path, yaml.safe_load(path.read_text(encoding='utf-8')) or {})} |")
    return "\n".join(rows) + "\n"


def _summary(path: Path, node: dict[str, Any]) -> str:
    """The first sentence of the file's comment, or of the docstring of the component."""
    comment = re.match(r"(?:# @package .*\n)?((?:#.*\n)*)", path.read_text(encoding="utf-8"))
    lines = [line.removeprefix("# ") for line in comment[1].splitlines()] if comment else []
    text = " ".join(line for line in lines if not line.startswith(" "))  # indented lines are examples
    text = text or _docstring(str(node.get("_target_", "")))
    return re.split(r"(?<=[a-z)])\. (?=[A-Z])", text)[0].removesuffix(".").replace("|", "\\|").replace("<", "&lt;")


def _docstring(target: str) -> str:
    path, _, rest = module_of(target.split(".")) or (None, [], [])
    if path is None or path.suffix != ".py" or len(rest) != 1:
        return ""
    module = parsed(path.read_bytes())
    nodes = [n for n in module.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == rest[0]]
    text = (ast.get_docstring(nodes[0]) if nodes else None) or ast.get_docstring(module) or ""
    return text.split("\n\n")[0].replace("\n", " ")


def _knobs(node: dict[str, Any], prefix: str = "") -> str:
    target = str(node.get("_target_", ""))
    settings = ModelConfig if prefix.endswith("config.") else BY_TARGET.get(target)
    known = {} if target.partition(".")[0] in LIBRARIES else constraints_of(target)
    if settings is not None:
        known = constraints_of(f"{settings.__module__}.{settings.__name__}")
    shown = []
    for name, value in node.items():
        if name.startswith("_") or name == "defaults":
            continue
        if isinstance(value, dict) and value:
            shown.append(_knobs(value, f"{prefix}{name}."))
        else:
            allowed = _allowed(known.get(name, Constraint()), value)
            shown.append(f"`{prefix}{name}={_written(value)}`{allowed}")
    return ", ".join(filter(None, shown)).replace("|", "\\|")


def _allowed(constraint: Constraint, default: Any) -> str:
    """The other values of a knob: words, or a range."""
    words = [f"`{word}`" for word in constraint.words if word != _written(default)]
    ranges = [_range(each) for each in constraint.alternatives if isinstance(each, Number)]
    ranges += [
        f"each {_range(each)}"
        for container in constraint.alternatives
        if isinstance(container, Container)
        for each in container.items.alternatives
        if isinstance(each, Number) and _range(each) and not ranges
    ]
    others = [*words, *filter(None, ranges)]
    others += [f"`{word}`" for word in constraint.words_in_lists]
    return f" ({', '.join(others)})" if others else ""


def _range(number: Number) -> str:
    low, high = (f"{limit:.15g}" for limit in (number.low, number.high))
    if not math.isfinite(number.low) and not math.isfinite(number.high):
        return ""
    left = "(" if number.open_low or not math.isfinite(number.low) else "["
    right = ")" if number.open_high or not math.isfinite(number.high) else "]"
    return f"{left}{low}, {high}{right}".replace("inf", "∞")


def _written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        path.write_text(with_tables(text), encoding="utf-8")
