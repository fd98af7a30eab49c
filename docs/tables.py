"""Write the tables of the documentation that repeat what is said elsewhere: options, metrics, results of a benchmark.

    python -m docs.tables

Each table stands in its page between ``<!-- table: NAME -->`` and ``<!-- end of table -->``. Run this after you
changed a setting or a metric, or the text of one. ``tests/test_docs.py`` fails while a table is out of date.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click

DOCS = Path(__file__).parent
RUNTIMES = DOCS.parent / "benchmarks" / "results" / "runtimes.md"
TABLE = re.compile(r"<!-- table: (\S+) -->\n(.*?)<!-- end of table -->", re.DOTALL)
DEFAULT_IN_HELP = re.compile(r"\s*\[default: (.*)\]$")


def option_rows(place: str, *, with_variables: bool = False) -> Iterator[list[str]]:
    """Yield the header and a row for each option of the command at ``place``, in the order of its ``--help``."""
    command: click.Command = pkgutil.resolve_name(place)
    yield ["flag", *(["variable"] if with_variables else []), "default", "meaning"]
    for option in command.params:
        if not isinstance(option, click.Option) or option.name == "version":
            continue
        text = option.help or ""
        default = _default(option)
        if found := DEFAULT_IN_HELP.search(text):
            text, default = text[: found.start()], f"`{found[1]}`"
        variable = f"`{option.envvar}`" if option.envvar else ""
        values = [variable, default] if with_variables else [default or (variable and f"the variable {variable}")]
        yield [f"`{option.opts[0]}`", *values, text]


def _default(option: click.Option) -> str:
    value = option.default
    if isinstance(option.show_default, str):
        return option.show_default
    if option.is_flag:
        return "on" if value is True else "off"
    if isinstance(value, str | Path):
        return f"`{value}`" if str(value) else ""
    return str(value) if isinstance(value, int | float) else ""


def metric_rows() -> Iterator[list[str]]:
    """Yield the header and a row for each metric family that ``GET /metrics`` declares."""
    from litestar.testing import TestClient

    from serving.api.app import create_app

    with TestClient(create_app(), base_url="http://127.0.0.1") as client:
        text = client.get("/metrics").text
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    yield ["metric", "type", "meaning"]
    for name, meaning in re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE):
        yield [f"`{name}`", types[name], meaning]


def runtime_rows() -> Iterator[list[str]]:
    """Yield the header and a row for each runtime that the benchmark tried."""
    lines = [line for line in RUNTIMES.read_text().splitlines() if line.startswith("|") and not line.startswith("|--")]
    return ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)


TABLES: dict[str, Callable[[], Iterator[list[str]]]] = {
    "mnist-train": lambda: option_rows("training.cli:main"),
    "mnist-export": lambda: option_rows("export.cli:main"),
    "mnist-serve": lambda: option_rows("serving.cli:serve", with_variables=True),
    "mnist-serve-tune": lambda: option_rows("serving.cli:tune"),
    "mnist-predict": lambda: option_rows("serving.cli:predict"),
    "metrics": metric_rows,
    "runtimes": runtime_rows,
}


def table(name: str) -> str:
    """Return the table ``name`` as Markdown, with a line break at its end."""
    header, *rows = TABLES[name]()
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def main() -> None:
    """Write every table anew, and name the pages that changed."""
    for page in sorted(DOCS.glob("*.md")):
        before = page.read_text()
        after = TABLE.sub(lambda found: f"<!-- table: {found[1]} -->\n{table(found[1])}<!-- end of table -->", before)
        if after != before:
            page.write_text(after)
            click.echo(f"wrote {page.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
