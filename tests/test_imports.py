"""What the import contract (`make check`) cannot see: modules that strings name, and loose modules."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*(ROOT / "mmtrain").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")])
IMPORTERS = ("import_module", "__import__", "run_module")


def imported_by_strings(source: str) -> Iterator[str]:
    """The calls that import a module by a name that is a value, and no import statement."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in IMPORTERS:
            yield ast.unparse(node)


def test_strings_are_found() -> None:
    source = 'importlib.import_module("mmtrain.modes.run")\ndef f(x):\n    return import_module(x)'
    assert list(imported_by_strings(source)) == ["importlib.import_module('mmtrain.modes.run')", "import_module(x)"]


def test_no_module_is_imported_by_a_string() -> None:
    results = {
        str(file.relative_to(ROOT)): list(imported_by_strings(file.read_text(encoding="utf-8"))) for file in FILES
    }
    assert {file: calls for file, calls in results.items() if calls} == {}


def test_few_modules_are_in_no_package() -> None:
    loose = [path.stem for path in (ROOT / "mmtrain").glob("*.py") if path.stem != "__init__"]
    assert len(loose) <= 8, loose
