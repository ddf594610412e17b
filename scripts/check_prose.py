"""Count unusual words and long sentences in the docs, and unusual words in the code.

    python scripts/check_prose.py              # compares each area with its limits; `make check` runs this
    python scripts/check_prose.py FILE ...     # lists every finding in these files

Of Python files it reads docstrings, comments and strings, of YAML files comments. Markdown is read without code blocks
and code spans. Only Markdown is checked for long sentences. A heading, a list item and a table cell each begin one.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MAX_SENTENCE = 30  # words


class Limit(NamedTuple):
    """What an area may have.

    Attributes:
        words: unusual words per 10,000 words.
        sentences: sentences of more than MAX_SENTENCE words; None where they are not counted.
    """

    words: int
    sentences: int | None = None


# A file counts in its first area. Lower a limit when its area has been rewritten.
LIMITS: dict[str, Limit] = {
    "docs/compatibility.md": Limit(words=5, sentences=0),  # written by scripts/write_compatibility.py
    "docs/options.md": Limit(words=6, sentences=7),  # written by scripts/write_options.py; a list counts as a sentence
    "README.md": Limit(words=5, sentences=0),
    "CONTRIBUTING.md": Limit(words=5, sentences=0),
    "docs/": Limit(words=5, sentences=0),
    "configs/": Limit(words=5),
    "hydra_plugins/": Limit(words=5),
    "mmtrain/": Limit(words=5),
    "scripts/": Limit(words=5),
    "tests/": Limit(words=5),
}

UNCHECKED = {"scripts/check_prose.py", "tests/test_check_prose.py"}  # they have the words themselves

# An expression, and the plain words to write instead. Case does not matter, and only complete words count.
REPLACEMENTS: dict[str, str] = {
    r"mend(s|ed|ing)?": "fix",
    r"said": "reported, logged, or name the sentence's subject",
    r"told": "given, set or reported",
    r"unless told": "by default",
    r"asked": "requested",
    r"held(?![- ]out)": "kept, frozen or locked",
    r"whole": "complete, full or all of",
    r"beside": "next to, or in addition to",
    r"likewise": "also",
    r"lack(s|ed|ing)?": "does not have, or is missing",
    r"stand(s|ing)?|stood": "is, or is in",
    r"of which": "whose, or a new sentence",
    r"whoever|whosoever": "the one who, or you",
    r"whatever": "any, or for every",
    r"what goes with what": "which options can be combined",
    r"(is|are|was|were|be) let pass|lets? pass": "is allowed",
    r"it is said": "the log reports it",
    r"(know|knows|knew) nothing of": "does not depend on",
    r"by (itself|themselves|himself)": "alone, separately or automatically",
    r"no more than": "at most, or only",
    r"one that": "name it",
    r"(is|are) to be had": "is available",
    r"nobody|anybody|somebody": "no one, anyone, a user, or the passive voice",
    r"speaks? of|spoken of|spoke of": "mentions, or refers to",
    r"pass(es|ed)? over": "skip",
    r"look(s|ed)? (at|through|over)": "check, search or read",
    r"gone on( with)?|go(es)? on (with|from|as)": "resume, or continue",
    r"for ever": "forever",
    r"spoil(s|ed|t)?": "corrupt",
    r"in the midst of": "in",
    r"at the (least|most)": "at least, at most",
    r"wants": "needs",
    r"lest|thereof|therein|wherein|whereof|hence|thus|albeit|whence|whither|hitherto": "so, or in it",
    r"so that (?=[^.!?;:]*\bso that\b)": "two sentences, or so",
}
PATTERN = re.compile(
    "|".join(rf"(?P<w{n}>\b(?:{words})\b)" for n, words in enumerate(REPLACEMENTS)).replace(" ", r"\s+"), re.IGNORECASE
)
PLAIN = list(REPLACEMENTS.values())
CODE = "\N{OBJECT REPLACEMENT CHARACTER}"  # in place of a code span: no word, but a part of a sentence
WORD = re.compile(r"[A-Za-z']+")
SENTENCE_END = re.compile(r"(?<=[.!?])[\")*_]*\s+(?=[^a-z\s])")


class Text(NamedTuple):
    """Prose of a file: a paragraph, a cell, a comment or a string.

    Attributes:
        line: the number of its first line, from 1.
        text: with its line breaks.
    """

    line: int
    text: str


class Finding(NamedTuple):
    """What is wrong, and where.

    Attributes:
        line: its number, from 1.
        message: the word and what to write instead, or the beginning of the sentence.
        is_sentence: whether it is a long sentence; otherwise it is a word.
    """

    line: int
    message: str
    is_sentence: bool


def texts_of_markdown(source: str) -> Iterator[Text]:
    """Paragraphs, list items, headings and table cells, without code blocks, code spans and link targets.

    Args:
        source: of the page.
    """
    paragraph: list[str] = []
    start = 0
    in_fence = False
    for number, line in enumerate([*source.splitlines(), ""], start=1):
        is_code = in_fence or line.startswith(("    ", "```"))
        in_fence ^= line.startswith("```")
        is_own = line.startswith(("|", "#", "* ", "- ")) or re.match(r"\d+\. ", line) is not None
        if paragraph and (is_code or is_own or not line.strip()):
            yield from _pieces(start, "\n".join(paragraph))
            paragraph = []
        if is_code or not line.strip():
            continue
        start = start if paragraph else number
        paragraph.append(line)


def _pieces(line: int, text: str) -> Iterator[Text]:
    """The prose of one paragraph; of a row of a table, its cells."""
    plain = re.sub(r"`[^`]*`", lambda span: CODE + "\n" * span[0].count("\n"), text)
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", plain)
    for piece in plain.strip("|").split("|") if text.startswith("|") else [plain]:
        yield Text(line, piece)


def texts_of_python(source: str) -> Iterator[Text]:
    """Comments and strings, docstrings and pieces of f-strings among them.

    Args:
        source: of the module.
    """
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(token.start[0], token.string)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(node.lineno, node.value)


def texts_of_yaml(source: str) -> Iterator[Text]:
    """Comments.

    Args:
        source: of the file.
    """
    for number, line in enumerate(source.splitlines(), start=1):
        if comment := re.search(r"(?:^|\s)#(.*)", line):
            yield Text(number, comment[1])


READERS = {".md": texts_of_markdown, ".py": texts_of_python, ".yaml": texts_of_yaml}


def findings_of(text: Text, *, sentences: bool) -> Iterator[Finding]:
    """Unusual words, and long sentences if `sentences` is set."""
    for match in PATTERN.finditer(text.text):
        plain = PLAIN[next(n for n in range(len(PLAIN)) if match[f"w{n}"] is not None)]
        line = text.line + text.text.count("\n", 0, match.start())
        yield Finding(line, f"{' '.join(match[0].split())} -> {plain}", is_sentence=False)
    place = 0
    for sentence in SENTENCE_END.split(text.text) if sentences else []:
        place = text.text.index(sentence, place)
        length = sum(1 for word in sentence.split() if re.search(rf"[\w{CODE}]", word))
        if length > MAX_SENTENCE:
            line = text.line + text.text.count("\n", 0, place)
            yield Finding(line, f"{length} words: {' '.join(sentence.split()[:6])} ...", is_sentence=True)


def check_file(path: Path) -> tuple[int, list[Finding]]:
    """The number of words in a file's prose, and its findings by line."""
    texts = list(READERS[path.suffix](path.read_text(encoding="utf-8")))
    is_markdown = path.suffix == ".md"
    results = [finding for text in texts for finding in findings_of(text, sentences=is_markdown)]
    return sum(len(WORD.findall(text.text)) for text in texts), sorted(results)


def files_of_areas() -> dict[str, list[Path]]:
    """The files of each area; a file of two areas is in the first."""
    areas: dict[str, list[Path]] = {}
    taken = {ROOT / name for name in UNCHECKED}
    for area in LIMITS:
        path = ROOT / area
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in READERS)
        areas[area] = [file for file in files if file not in taken]
        taken.update(files)
    return areas


def main(names: list[str]) -> int:
    """Check files or all areas, and print what was found.

    Args:
        names: files whose findings are listed; for none, each area is compared with its limits.

    Returns:
        The exit status: 1 if an area exceeds a limit.
    """
    if names:
        for name in names:
            for finding in check_file(Path(name))[1]:
                print(f"{name}:{finding.line}: {finding.message}")
        return 0
    status = 0
    for area, paths in files_of_areas().items():
        checked = {path: check_file(path) for path in paths}
        num_words = sum(words for words, _ in checked.values())
        results = {path: result for path, (_, result) in checked.items()}
        num_long = sum(f.is_sentence for each in results.values() for f in each)
        num_unusual = sum(len(each) for each in results.values()) - num_long
        rate = 10_000 * num_unusual / max(num_words, 1)
        limit = LIMITS[area]
        too_many = rate > limit.words
        too_long = limit.sentences is not None and num_long > limit.sentences
        for path, each in results.items():
            for finding in each:
                if too_long if finding.is_sentence else too_many:
                    print(f"{path.relative_to(ROOT)}:{finding.line}: {finding.message}")
        long = "" if limit.sentences is None else f", {num_long} long sentences (limit {limit.sentences})"
        print(f"{area}: {rate:.1f} unusual words per 10,000 (limit {limit.words}){long}")
        status |= too_many or too_long
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
