"""Read the tar archive of a layer that anyone may have made, within limits.

A layer of a few kilobytes may expand to any size, and the headers of a single file may be as large as the archive. The
module tarfile reads such headers into memory, and keeps an object for each file.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from serving.errors import BundleError, first_line, printable
from serving.models.bundle import MAX_BUNDLE_BYTES

GZIP = b"\x1f\x8b"
# Files of a base image may stand in the same layer.
MAX_MEMBERS = 100_000
# Bytes of all headers of one file. An ordinary file has 512, one with a long name or extended attributes some more.
MAX_HEADER_BYTES = 1_000_000
# The unpacked archive: the files of a bundle, and the blocks that tar adds.
MAX_BYTES = MAX_BUNDLE_BYTES + 1024 * MAX_MEMBERS
PIECE = 1 << 20


class Layer:
    """The files of a layer.

    Raises:
        BundleError: the layer is malformed, or breaks a limit. The methods raise it too.
    """

    def __init__(self, content: bytes) -> None:
        self._source = _Source(content)

    def files(self) -> Iterator[tuple[str, int, Iterator[bytes]]]:
        """Yield name, size and pieces of the content of each regular file."""
        count = 0
        self._source.allowed = MAX_HEADER_BYTES
        with _explained(), tarfile.open(fileobj=self._source, mode="r:") as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                # tarfile would keep all of them.
                archive.members.clear()
                count += 1
                if count > MAX_MEMBERS:
                    raise BundleError(f"the image has more than {MAX_MEMBERS} files in a layer")
                if member.isreg() and not member.issparse():
                    yield member.name, member.size, self._pieces(archive, member)
                self._source.allowed = MAX_HEADER_BYTES

    def _pieces(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
        # The caller reads these, so that files() does not see their errors.
        with _explained():
            source = archive.extractfile(member)
            assert source is not None  # noqa: S101 (it is a regular file)
            self._source.allowed = member.size + MAX_HEADER_BYTES
            while piece := source.read(PIECE):
                yield piece


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the errors of a malformed archive into one line."""
    try:
        yield
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, ValueError, RecursionError) as error:
        raise BundleError(f"the image cannot be unpacked: {printable(first_line(error))}") from error


class _Source:
    """The unpacked bytes of a layer, as a file that is read from the front to the end."""

    def __init__(self, content: bytes) -> None:
        file = io.BytesIO(content)
        self._file: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=file) if content.startswith(GZIP) else file
        self._place = 0
        self.allowed = 0
        """Bytes that may still be read. Bytes that are passed over do not count."""

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.allowed:
            raise BundleError(f"the image has a file with over {MAX_HEADER_BYTES} bytes of headers in a layer")
        self.allowed -= size
        return self._read(size)

    def seek(self, place: int) -> None:
        while self._place < place and self._read(min(PIECE, place - self._place)):
            pass

    def _read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._place += len(content)
        if self._place > MAX_BYTES:
            raise BundleError(f"the image has a layer that unpacks to more than {MAX_BYTES} bytes")
        return content
