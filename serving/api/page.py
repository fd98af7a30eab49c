"""The web page, the API documentation and their files. They are read once, when the service starts."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestar import HttpMethod, Request, Response, route
from litestar.exceptions import NotFoundException

WEB = Path(__file__).parent.parent / "web"
PAGES = {"/": "index.html", "/docs": "docs.html"}


@dataclass(frozen=True)
class File:
    """A file, and the headers of its response."""

    content: bytes
    kind: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> File:
        content = path.read_bytes()
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return cls(content, f"{kind}; charset=utf-8", f'"{hashlib.sha256(content).hexdigest()[:16]}"')


def read_files() -> dict[str, File]:
    """Return every file of the pages by its name."""
    return {path.name: File.read(path) for path in sorted(WEB.iterdir()) if path.is_file()}


@route([*PAGES, "/{file:str}"], http_method=[HttpMethod.GET, HttpMethod.HEAD], include_in_schema=False)
async def page(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Respond with a file of the pages.

    The name must be one of the files that were read when the service started, so no path leads to another file.
    """
    name = PAGES.get(request.scope["path"]) or request.path_params.get("file", "")
    file: File | None = request.app.state.files.get(name)
    if file is None:
        raise NotFoundException
    headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == file.etag:
        return Response(b"", status_code=304, headers=headers)
    return Response(file.content, media_type=file.kind, headers=headers)
