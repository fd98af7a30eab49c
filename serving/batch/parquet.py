"""Turn JSON lines into a Parquet file, and back. Only here pyarrow is used, an optional package."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from serving import shares
from serving.batch.rows import JsonLines, Row

# Rows that are in memory at a time.
GROUP = 10_000


def pack(lines: Path, path: Path) -> None:
    """Write the rows of a file of JSON lines to a Parquet file, which appears when it is complete."""
    import pyarrow as pa
    from pyarrow import parquet

    with lines.open("rb") as file, shares.writing(path) as output:
        rows = map(msgspec.json.decode, file)
        with parquet.ParquetWriter(output, _schema(pa), compression="zstd") as writer:
            while group := list(islice(rows, GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema=_schema(pa)))


def unpack(path: Path) -> Iterator[bytes]:
    """Yield the rows of a Parquet file as JSON lines, up to ``GROUP`` at a time."""
    from pyarrow import parquet

    encode = JsonLines().encode
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(GROUP):
            yield b"".join(encode(msgspec.convert(row, Row)) for row in batch.to_pylist())


def _schema(pa: Any) -> Any:
    kinds = {
        "file": pa.string(),
        "digit": pa.int32(),
        "label": pa.string(),
        "confidence": pa.float64(),
        "probabilities": pa.list_(pa.float64()),
        "accepted": pa.bool_(),
        "reason": pa.string(),
        "error": pa.string(),
        "model": pa.string(),
    }
    return pa.schema([(name, kinds[name]) for name in Row.__struct_fields__])
