"""scripts/check_prose.py: which words and sentences it reports, and what it leaves out."""

from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONG = "Word " + " ".join(["word"] * 30)


@pytest.fixture
def prose(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import check_prose

    return check_prose


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("a.md", "One line.\nIt lacks\na fix.\n", [(2, "lacks -> does not have, or is missing")]),
        ("a.md", "| cell | Mended |\n", [(1, "Mended -> fix")]),
        ("a.md", "* a list of\n  which one\n", [(1, "of which -> whose, or a new sentence")]),
        ("a.md", "`told`, [a page](told.md)\n\n    told in code\n\n```\ntold\n```\nA standard, held-out set.\n", []),
        ("a.py", '"""One.\n\nThe whole file."""\n', [(3, "whole -> complete, full or all of")]),
        ("a.py", "said = 1  # told\n", [(1, "told -> given, set or reported")]),
        ("a.py", 'x = f"a {told} thing that is asked"\n', [(1, "asked -> requested")]),
        ("a.yaml", "said: 1  # what was asked\n", [(1, "asked -> requested")]),
        ("a.md", f"Short. {LONG}.\n", [(1, "31 words: Word word word word word word ...")]),
        ("a.md", f"{LONG[:-5]}.\n", []),
        ("a.md", f"Short.\nAlso short. `code`\n{LONG[:-5]}.\n", [(2, "31 words: \ufffc Word word word word word ...")]),
        ("a.md", f"| {LONG[:-5]} | {LONG[:-5]} |\n", []),
        ("a.py", f"# {LONG}\n", []),
    ],
)
def test_findings(prose: ModuleType, tmp_path: Path, name: str, source: str, found: list[tuple[int, str]]) -> None:
    (tmp_path / name).write_text(source, encoding="utf-8")
    assert [(f.line, f.message) for f in prose.check_file(tmp_path / name)[1]] == found


@pytest.mark.parametrize(("page", "status"), [("A short page.\n", 0), ("It stands.\n", 1), (f"{LONG}.\n", 1)])
def test_an_area_above_its_limit_fails(
    prose: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    page: str,
    status: int,
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text(page, encoding="utf-8")
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setattr(prose, "LIMITS", {"docs/": prose.Limit(words=5, sentences=0)})
    assert prose.main([]) == status
    printed = capsys.readouterr().out
    assert ("docs/page.md:1: " in printed) == bool(status)


def test_every_area_exists(prose: ModuleType) -> None:
    assert [area for area, files in prose.files_of_areas().items() if not files] == []
