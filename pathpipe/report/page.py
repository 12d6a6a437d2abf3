"""The page: a template filled with sections, pictures and plots inside, nothing fetched."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pathpipe.provenance import Provenance
from pathpipe.report.blocks import Page, Value
from pathpipe.report.words import DASH, number


def render_page(page: Page, path: Path, provenance: Provenance) -> None:
    """Write one HTML file that needs no network; equal pages give equal bytes."""
    environment = Environment(
        loader=PackageLoader("pathpipe.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=shown, jpeg=jpeg_uri, code=code_marks, svg=Markup)
    html = environment.get_template("page.html.j2").render(page=page, provenance=_json_for_script(provenance))
    path.write_text(html, encoding="utf-8")


def shown(value: Value, digits: int) -> str:
    """A cell's text: whole numbers whole, others with so many decimals."""
    if value is None:
        return DASH
    if isinstance(value, int):
        return f"{value:,}"
    return number(value, digits) if isinstance(value, float) else str(value)


def jpeg_uri(content: bytes) -> str:
    """A picture inside the page."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def code_marks(text: str) -> Markup:
    """Text with `names` in backticks set as code; all of it escaped."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner is only a backtick
        return escape(text)
    marked = [Markup("<code>{}</code>").format(part) if odd % 2 else escape(part) for odd, part in enumerate(parts)]
    return Markup("").join(marked)


def _json_for_script(provenance: Provenance) -> Markup:
    # `<` can't stand in a script element's text: it might open a tag
    text = json.dumps(provenance.to_dict(), ensure_ascii=False).replace("<", "\\u003c")
    return Markup(text)
