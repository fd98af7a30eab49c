"""The page, its files, and the API's documentation: a fixed set, held in memory."""

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
    """A file as it is answered with."""

    content: bytes
    kind: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> File:
        """From the package."""
        content = path.read_bytes()
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return cls(content, f"{kind}; charset=utf-8", f'"{hashlib.sha256(content).hexdigest()[:16]}"')


def read_files() -> dict[str, File]:
    """Every file of the page by name."""
    return {path.name: File.read(path) for path in sorted(WEB.iterdir()) if path.is_file()}


@route([*PAGES, "/{file:str}"], http_method=[HttpMethod.GET, HttpMethod.HEAD], include_in_schema=False)
async def page(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A file of the page. Looked up by name among those there are: no path leads anywhere else."""
    name = PAGES.get(request.scope["path"]) or request.path_params.get("file", "")
    file: File | None = request.app.state.files.get(name)
    if file is None:
        raise NotFoundException
    headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == file.etag:
        return Response(b"", status_code=304, headers=headers)
    return Response(file.content, media_type=file.kind, headers=headers)
