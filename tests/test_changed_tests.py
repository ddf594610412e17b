"""scripts/changed_tests.py names the tests of what has changed, and always a few of a run."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import changed_tests

    return changed_tests


def own(script: Any, *files: str) -> list[str]:
    """What they add to the tests that always run."""
    return [test for test in script.tests_of(files, ROOT) if test not in script.SMOKE]


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("tests/fusion/test_film.py", ["tests/fusion/test_film.py"]),
        ("configs/fusion/film.yaml", ["tests/test_configs.py::test_it_composes_without_a_fault[fusion/film]"]),
        ("configs/fusion/no_longer_there.yaml", []),
        ("scripts/chaos.py", ["tests/test_chaos.py"]),
        ("mmtrain/no_longer_there.py", []),
        ("docs/tables.md", []),
    ],
)
def test_a_file_has_its_tests(script: Any, file: str, tests: list[str]) -> None:
    assert own(script, file) == tests


def test_a_module_has_its_own_tests_first_and_then_those_that_import_it(script: Any) -> None:
    assert own(script, "mmtrain/config/signatures.py")[0] == "tests/config/test_signatures.py"
    assert (
        own(script, "mmtrain/config/signatures.py", "tests/config/test_signatures.py").count(
            "tests/config/test_signatures.py"
        )
        == 1
    )


def test_of_a_module_that_many_import_only_its_own_tests_run(script: Any) -> None:
    assert own(script, "mmtrain/build.py", "tests/tiny.py") == ["tests/test_build.py"]


def test_what_always_runs_is_there_and_comes_once(script: Any) -> None:
    assert script.tests_of([], ROOT) == list(script.SMOKE)
    for test in script.SMOKE:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")
    full = script.tests_of(["tests/modes/test_run.py"], ROOT)
    assert "tests/modes/test_run.py" in full and not any(test.startswith("tests/modes/test_run.py::") for test in full)


def test_what_is_committed_changed_and_new_since_the_branch_began(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        as_somebody = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *as_somebody, *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(script, "ROOT", tmp_path)
    for name in ("old", "changed", "committed"):
        (tmp_path / name).write_text("1\n")
    git("init", "-b", "main")
    git("add", ".")
    git("commit", "-m", "first")
    git("checkout", "-b", "work")
    (tmp_path / "committed").write_text("2\n")
    git("commit", "-am", "second")
    (tmp_path / "changed").write_text("2\n")
    (tmp_path / "new").write_text("1\n")
    assert script.changed_files("main") == ["changed", "committed", "new"]
    with pytest.raises(SystemExit, match="BASE=origin/main"):
        script.changed_files("no_such_branch")
