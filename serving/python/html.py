"""Results as HTML for a notebook. Every text is escaped: the name of a class or of a file may hold anything."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image

from serving.contract import Images

BAR = 20  # characters


def facts(rows: Mapping[str, str]) -> str:
    """Return a table with a row for each name and its value."""
    return table((), [(f"<b>{html.escape(name)}</b>", html.escape(value)) for name, value in rows.items()])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already."""
    lines = ["<table>"]
    if head:
        lines.append("<thead><tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + "</tr></thead>")
    cells = ("".join(f'<td style="text-align: left">{cell}</td>' for cell in row) for row in rows)
    return "".join([*lines, "<tbody>", *(f"<tr>{row}</tr>" for row in cells), "</tbody></table>"])


def picture(image: Images, side: int) -> str:
    """Return an image, uint8 ``[H, W]``, as an element of ``side`` pixels."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img src="data:image/png;base64,{data}" width="{side}" height="{side}" style="image-rendering: pixelated" '
        'alt="the input of the model">'
    )


def bar(share: float) -> str:
    """Return a bar of text. Sites that show notebooks remove colours and widths, but keep text."""
    return f"<code>{'█' * round(BAR * share)}</code>"


def text(value: str) -> str:
    return html.escape(value)
