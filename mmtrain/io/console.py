"""The console that tables and notes are printed to. What comes from data cannot control the terminal."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from mmtrain.io.escape import escape_terminal


def plain_text(text: str) -> Text:
    """A name or an id in a table: brackets are no markup, and control characters are shown, which takes more columns.

    Args:
        text: of any origin.
    """
    return Text(escape_terminal(text))


class Terminal(Console):
    """rich's Console for text of any origin; numbers and paths in it are not coloured.

    Args:
        width: in columns; None for that of the terminal.
        stderr: whether it writes to stderr.
    """

    def __init__(self, *, width: int | None = None, stderr: bool = False) -> None:
        super().__init__(highlight=False, width=width, stderr=stderr)

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does; it drops some control characters, so that they are escaped before."""
        return super().render_str(escape_terminal(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does; what was not escaped before it was laid out is escaped here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escape_terminal(segment.text), segment.style)
