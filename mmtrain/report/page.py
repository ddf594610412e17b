"""Pages: one self-contained HTML file each, written atomically."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from mmtrain.io.run_files import write_text
from mmtrain.report.table import digits


def write_page(path: Path, template: str, contents: Mapping[str, Any]) -> None:
    """Render a template of this folder.

    Args:
        path: path of the page.
        template: name of the template file.
        contents: variables of the template. A missing variable is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"digits": digits, "breakable": _breakable}
    page = environment.get_template(template).render(contents)
    write_text(path, page)


def _breakable(name: str) -> Markup:
    """The name of a metric that may wrap after a slash or an underscore, but not inside a word."""
    return Markup(re.sub(r"([/_])", r"\1<wbr>", str(escape(name))))
