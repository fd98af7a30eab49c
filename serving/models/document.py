"""A short document of headings, paragraphs, lists and tables, written as Markdown or as HTML.

All its texts are plain. Both writers escape them, because the names of a user's classes may hold any character.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NUMBER = re.compile(r"[\d.,%]*")
MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&#])")
# A manifest may list thousands of files or classes.
MAX_ROWS = 200


@dataclass(frozen=True)
class Heading:
    """The heading of a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list without numbers."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Lines to type into a shell."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table. Rows beyond ``MAX_ROWS`` are left out and counted."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> Sequence[bool]:
        """For each column, whether it holds numbers only. Such a column is aligned to the right."""
        return [all(NUMBER.fullmatch(cell) for cell in column) for column in zip(*self.rows, strict=True)]

    @property
    def shown(self) -> Sequence[Sequence[str]]:
        """The first ``MAX_ROWS`` rows, and one that counts the others, if there are any."""
        left_out = len(self.rows) - MAX_ROWS
        more = [[f"and {left_out} more", *[""] * (len(self.header) - 1)]] if left_out > 0 else []
        return [*self.rows[:MAX_ROWS], *more]


Block = Heading | Paragraph | Items | Code | Table


def to_markdown(title: str, blocks: Iterable[Block]) -> str:
    """Return the document as GitHub's Markdown."""
    return "\n\n".join([f"# {_plain(title)}", *map(_markdown, blocks)]) + "\n"


def to_html(blocks: Iterable[Block]) -> str:
    """Return the document, without its title, as the inside of an HTML element. Each heading begins a section."""
    pieces: list[str] = []
    is_open = False
    for block in blocks:
        if isinstance(block, Heading):
            pieces.append("</section><section>" if is_open else "<section>")
            is_open = True
        pieces.append(_html(block))
    return "\n".join([*pieces, "</section>" if is_open else ""])


def on_one_line(text: str) -> str:
    """Return a text without line breaks and control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def _plain(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", on_one_line(text))


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Items(items):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case Code(text):
            return f"```sh\n{text}\n```"
        case Table(header):
            head, *rows = (f"| {' | '.join(map(_plain, row))} |" for row in (header, *block.shown))
            rule = " | ".join("---:" if numeric else "---" for numeric in block.numeric)
            return "\n".join([head, f"| {rule} |", *rows])


def _html(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{html.escape(text)}</h2>"
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Items(items):
            return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"
        case Code(text):
            return f"<pre><code>{html.escape(text)}</code></pre>"
        case Table(header):
            marks = [' class="number"' if numeric else "" for numeric in block.numeric]
            head = _cells("th", [f' scope="col"{mark}' for mark in marks], header)
            body = "\n".join(f"<tr>{_cells('td', marks, row)}</tr>" for row in block.shown)
            # The keyboard must be able to scroll a wide table.
            table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
            return f'<div class="wide" tabindex="0">{table}</div>'


def _cells(tag: str, marks: Sequence[str], row: Sequence[str]) -> str:
    return "".join(f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=True))
