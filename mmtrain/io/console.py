"""The console for tables and notes. Text from data cannot control the terminal."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from mmtrain.io.escape import escape_terminal


def plain_text(text: str) -> Text:
    """A name or an id in a table: brackets are not markup, and control characters are shown, which needs more columns.

    Args:
        text: of any origin.
    """
    return Text(escape_terminal(text))


class Terminal(Console):
    """Rich's Console for text of any origin. Numbers and paths in it are not coloured.

    Args:
        width: in columns; None for the width of the terminal.
        stderr: whether it writes to stderr.
    """

    def __init__(self, *, width: int | None = None, stderr: bool = False) -> None:
        super().__init__(highlight=False, width=width, stderr=stderr)

    def render_str(self, text: str, **options: Any) -> Text:
        """As in rich, but control characters are escaped first, because rich drops some of them."""
        return super().render_str(escape_terminal(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As in rich, but everything that was not escaped before the layout is escaped here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escape_terminal(segment.text), segment.style)
