"""Text of any origin in the terminal, in Markdown (judged by an independent parser) and in cells of tables."""

import csv
import doctest
import html
import io
import random
import re
from typing import Any

import pytest
from markdown_it import MarkdownIt

from mmtrain.io import escape
from mmtrain.io.escape import escape_csv, escape_markdown, escape_markdown_line, escape_terminal, markdown_code

PIECES = [*"\\`*_[]<>#|&~!():/.-+=1 \nab@", "http://", "www.", "<script>", "&lt;", "|---|", "\r\n\r\n# ", "![a](b)"]
ORDINARY = (
    *("a dog on grass", "größer", "日本語", "שלום", "👩‍🚀 ✊🏽", "a\tb"),
    *("label/macro_f1", "text_to_image_R@10", "-1.5", "1,234"),
)


def test_the_examples_hold() -> None:
    assert doctest.testmod(escape).failed == 0


def texts(count: int = 1500) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices(PIECES, k=draw.randrange(1, 14))) for _ in range(count)]


@pytest.mark.parametrize("around", ["{}\n", "- licence: {}\n", "# {}\n", "| a | b |\n| --- | --- |\n| {} | x |\n"])
def test_markdown_shows_every_text_as_it_is_in_one_line(around: str) -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    plain = parser.render(around.format("PLAIN"))
    for text in texts():
        line = " ".join(text.split())
        if line:
            expected = plain.replace("PLAIN", html.escape(line, quote=False))
            escaped = (escape_markdown_line if around.startswith("{}") else escape_markdown)(text)
            assert html.unescape(parser.render(around.format(escaped))) == html.unescape(expected), text


def test_a_code_span_shows_every_text_as_it_is() -> None:
    parser = MarkdownIt("commonmark")
    for text in texts():
        line = " ".join(text.split())
        if line:
            shown = re.fullmatch(
                "<ul>\n<li>a: <code>(.*)</code></li>\n</ul>\n", parser.render(f"- a: {markdown_code(text)}")
            )
            assert shown is not None and html.unescape(shown[1]) == line, text


@pytest.mark.parametrize("text", ["https://a.b/c", "see http://a.b", "www.a.b", "mail a.b@c.de", "ftp://a"])
def test_addresses_do_not_become_links(text: str) -> None:
    """GitHub makes links of these beginnings, unless they have a backslash."""
    assert re.search(r"(?<!\\)(://|@\w)|www\.", escape_markdown(text)) is None


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    assert escape_terminal(text) == text
    assert escape_markdown(text) == " ".join(text.split())
    assert escape_csv(text) == text


def test_every_control_character_is_shown() -> None:
    controls = [*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x61C]
    for number in controls:
        text = f"a{chr(number)}b"
        shown = escape_terminal(text)
        assert shown == text if chr(number) in "\n\t" else shown.isascii() and shown.isprintable(), number
        assert escape_markdown(text).isprintable()


def test_text_that_cannot_be_encoded_is_shown() -> None:
    """A name that is no UTF-8, as `os.listdir` gives it, and half an emoji."""
    assert escape_terminal("\udcff.png \ud83d") == r"\udcff.png \ud83d"
    escape_markdown("\udcff").encode()


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@SUM(1)", "\t=1", "\r=1", "\n=1", "=", "--", "-1-1"])
def test_a_cell_is_no_formula(text: str) -> None:
    assert escape_csv(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-0.5", "+3", "-1e-05", "-inf", "nan", "-1,234", 0, -1.5, None, "", "'=1", " =1"])
def test_numbers_and_other_cells_stay(value: Any) -> None:
    assert escape_csv(value) == value


def test_a_table_comes_back_by_taking_the_apostrophe_away() -> None:
    rows = [["run", "value"], ["=cmd|'/c calc'!A0", -0.5], ["+trainer.max_steps=3", None]]
    file = io.StringIO()
    csv.writer(file).writerows([[escape_csv(cell) for cell in row] for row in rows])
    back = list(csv.reader(io.StringIO(file.getvalue())))
    assert [cell.removeprefix("'") for cell in back[1]] == ["=cmd|'/c calc'!A0", "-0.5"]
