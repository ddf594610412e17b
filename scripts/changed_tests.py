"""The tests for changes since a branch, for `make quick`: one pytest argument per line.

    python scripts/changed_tests.py [main]

A changed test file is run. A changed module has the test file of the same place (`mmtrain/fusion/film.py` has
`tests/fusion/test_film.py`), and the test files that import it. A changed file of `configs/` is composed. A few tests
of a run of the default model are always included. Of a module that many test files import, only its own test file is
run. `make test` finds its effects elsewhere.
"""

import argparse
import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_IMPORTERS = 6  # test files, which take a minute or two on two cores
SMOKE = (
    "tests/modes/test_run.py::test_the_run_folder_is_whole",
    "tests/modes/test_run.py::test_mode_test_repeats_the_figures_of_fit",
    "tests/config/test_compose.py::test_composes_what_hydra_composes",
    "tests/cli/test_main.py::test_a_wrong_command_in_the_checkout_leaves_nothing",
)


def changed_files(base: str) -> list[str]:
    """Files that differ from the common ancestor with `base`, committed or not, including untracked files."""
    start = _git("merge-base", base, "HEAD")[0]
    results = [*_git("diff", "--name-only", start), *_git("ls-files", "--others", "--exclude-standard")]
    return sorted(set(results))


def tests_of(files: Iterable[str], root: Path) -> list[str]:
    """Tests below `root` to run for these changed files, whose paths are relative to it."""
    results: dict[str, None] = {}
    imports = {path: set(_imports(root / path)) for path in _test_files(root)}
    for file in files:
        results |= dict.fromkeys(_tests_of_file(Path(file), root, imports))
    return [*results, *(test for test in SMOKE if test.partition("::")[0] not in results)]


def _test_files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in (root / "tests").rglob("test_*.py"))


def _imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, and the names that it imports from each, by dotted path."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _tests_of_file(file: Path, root: Path, imports: dict[str, set[str]]) -> list[str]:
    top, name = file.parts[0], file.as_posix()
    if name in imports:
        return [name]
    if top == "configs" and file.suffix == ".yaml" and (root / file).is_file():
        option = file.relative_to("configs").with_suffix("").as_posix()
        return [f"tests/test_configs.py::test_it_composes_without_a_fault[{option}]"]
    if file.suffix != ".py" or top not in ("mmtrain", "scripts", "tests"):
        return []
    module = ".".join((file.parent if file.name == "__init__.py" else file.with_suffix("")).parts)
    mirror = Path("tests", *file.parts[1:-1], f"test_{file.name}").as_posix()
    importing = [test for test, modules in imports.items() if module in modules]
    own = [mirror] if mirror in imports else []
    return own + [test for test in importing if test not in own] if len(importing) <= MAX_IMPORTERS else own


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.strip()}\n    fix: make quick BASE=origin/main")
    return done.stdout.splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="main", help="the branch to compare with")
    print("\n".join(tests_of(changed_files(parser.parse_args().base), ROOT)))


if __name__ == "__main__":
    main()
