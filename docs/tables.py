"""Write the tables of the documentation that repeat what is said elsewhere: options, metrics, results of a benchmark.

    python -m docs.tables

Each table stands in its page between ``<!-- table: NAME -->`` and ``<!-- end of table -->``. Run this after you
changed a setting or a metric, or the text of one. ``tests/test_docs.py`` fails while a table is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click

DOCS = Path(__file__).parent
RUNTIMES = DOCS.parent / "benchmarks" / "results" / "runtimes.md"
TABLE = re.compile(r"<!-- table: (\S+) -->\n(.*?)<!-- end of table -->", re.DOTALL)
DEFAULT_IN_HELP = re.compile(r"\s*\[default: (.*)\]$")


def option_rows(command: click.Command, *, with_variables: bool = False) -> Iterator[list[str]]:
    """Yield the header and a row for each option of ``command``, in the order of its ``--help``."""
    yield ["flag", *(["variable"] if with_variables else []), "default", "meaning"]
    for option in command.params:
        if not isinstance(option, click.Option) or option.name == "version":
            continue
        text = option.help or ""
        default = _default(option)
        if found := DEFAULT_IN_HELP.search(text):
            text, default = text[: found.start()], f"`{found[1]}`"
        variable = f"`{option.envvar}`" if option.envvar else ""
        values = [variable, default] if with_variables else [default or variable]
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


def service_rows() -> Iterator[list[str]]:
    from serving.cli import serve

    return option_rows(serve, with_variables=True)


def tune_rows() -> Iterator[list[str]]:
    from serving.cli import tune

    return option_rows(tune)


def predict_rows() -> Iterator[list[str]]:
    from serving.cli import predict

    return option_rows(predict)


def training_rows() -> Iterator[list[str]]:
    from training.cli import main as train

    return option_rows(train)


def export_rows() -> Iterator[list[str]]:
    from export.cli import main as export

    return option_rows(export)


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
    "mnist-train": training_rows,
    "mnist-export": export_rows,
    "mnist-serve": service_rows,
    "mnist-serve-tune": tune_rows,
    "mnist-predict": predict_rows,
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
