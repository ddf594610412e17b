"""Escapes text of data, files or the command line for its output: terminal, Markdown, spreadsheet.

Ordinary text is unchanged, in every language and with emoji.
"""

import re
import sys
from typing import Any

# C0 without tab and newline, DEL, C1; marks that change the direction of text; line separators; lone surrogates, which
# cannot be encoded.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKDOWN = re.compile(r"[\\`*\[\]<>#|&~]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.|(?<=[\w+-])@(?=[\w-]+\.)")
_BLOCK_START = re.compile(r"(?:[-+]|\d{1,9}[.)])(?=\s|$)|[-=](?=[-=\s]|$)")  # "- a", "10. a", "---"
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r", "\n")


def escape_terminal(text: str) -> str:
    r"""Escape control characters as `\x1b` and `\u202e`: text cannot move the cursor, set a title or reorder a line.

    >>> print(escape_terminal("a\x1b]0;title\x07.png\r"))
    a\x1b]0;title\x07.png\x0d
    >>> escape_terminal("größer, 日本, שלום, 👩‍🚀\n\tb")
    'größer, 日本, שלום, 👩\u200d🚀\n\tb'
    """
    return _CONTROL.sub(lambda match: _code(match[0]), text)


def one_line(text: str) -> str:
    r"""Escape an id or a file name for a message, in which it cannot begin a line of its own.

    >>> print(one_line("a.png\nreport: done"))
    a.png\x0areport: done
    """
    return escape_terminal(text).replace("\n", r"\x0a")


def print_escaped(text: object, *, stderr: bool = False) -> None:
    """Print `str(text)` as a line, without buffering, with its control characters escaped.

    Args:
        text: of any origin.
        stderr: whether it goes to stderr.
    """
    print(escape_terminal(str(text)), file=sys.stderr if stderr else sys.stdout, flush=True)


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def escape_markdown(value: Any) -> str:
    r"""Escape `str(value)` for a line of Markdown: it creates no table cell, emphasis, HTML, entity or link.

    >>> print(escape_markdown("dog|fox\n\n# <script>"))
    dog\|fox \# \<script\>
    >>> print(escape_markdown("label/macro_f1"), escape_markdown("https://a.b"), escape_markdown(-1.5))
    label/macro_f1 https\://a.b -1.5
    """
    return _MARKDOWN.sub(lambda match: f"\\{match[0]}", escape_terminal(" ".join(str(value).split())))


def escape_markdown_line(value: Any) -> str:
    r"""As `escape_markdown`, for the beginning of a line: it also creates no list, rule or heading.

    >>> print(escape_markdown_line("- x"), escape_markdown_line("10. x"), escape_markdown_line("---"))
    \- x 10\. x \---
    """
    text = escape_markdown(value)
    start = _BLOCK_START.match(text)
    return text if start is None else f"{text[: start.end() - 1]}\\{text[start.end() - 1 :]}"


def markdown_code(value: Any) -> str:
    r"""A code span that shows `str(value)` in one line, including backticks.

    >>> markdown_code("a `b`")
    '`` a `b` ``'
    """
    text = escape_terminal(" ".join(str(value).split()))
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"{fence}{text}{fence}"


def escape_csv(value: Any) -> Any:
    """A cell that is not a formula in a spreadsheet: text that begins like a formula gets an apostrophe (OWASP).

    >>> [escape_csv(v) for v in ("=cmd()", "+trainer.x=1", "-0.5", "+3", -2, None, "a=b")]
    ["'=cmd()", "'+trainer.x=1", '-0.5', '+3', -2, None, 'a=b']
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA_START) or _is_number(value):
        return value
    return f"'{value}"


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True
