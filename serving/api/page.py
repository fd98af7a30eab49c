"""The web page, the API documentation and their files. They are read once, when the service starts."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from litestar import HttpMethod, route
from litestar.exceptions import NotFoundException
from litestar.types import ASGIApp

from serving.api.context import AnyRequest
from serving.api.responses import Response

WEB = Path(__file__).parent.parent / "web"
PAGES = {"/": "index.html", "/docs": "docs.html"}


@dataclass(frozen=True)
class File:
    """A file, and the headers of its response."""

    content: bytes
    content_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> File:
        content = path.read_bytes()
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if kind.startswith("text/"):
            kind += "; charset=utf-8"
        return cls(content, kind, f'"{hashlib.sha256(content).hexdigest()[:16]}"')


def read_files() -> dict[str, File]:
    """Return every file of the pages by its name."""
    return {path.name: File.read(path) for path in sorted(WEB.iterdir()) if path.is_file()}


@route([*PAGES, "/{file:str}"], http_method=[HttpMethod.GET, HttpMethod.HEAD], include_in_schema=False)
async def page(request: AnyRequest) -> ASGIApp:
    """Respond with a file of the pages.

    The name must be one of the files that were read when the service started, so no path leads to another file.
    """
    name = PAGES.get(request.scope["path"]) or request.path_params.get("file", "")
    file: File | None = request.app.state.files.get(name)
    if file is None:
        raise NotFoundException
    headers = [(b"etag", file.etag.encode()), (b"cache-control", b"no-cache")]
    if request.headers.get("if-none-match") == file.etag:
        return Response(b"", headers, status=304)
    return Response(file.content, [*headers, (b"content-type", file.content_type.encode())])
