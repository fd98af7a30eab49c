"""The web page, the API documentation and their files. They are read once, when the service starts."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from serving.api.context import AnyRequest
from serving.api.responses import Response
from serving.hosts import is_loopback

WEB = Path(__file__).parent.parent / "web"
PAGES = {"/": "index.html", "/docs": "docs.html"}
# The part of the page that asks for feedback is hidden unless feedback may be stored.
FEEDBACK = b'id="feedback" hidden', b'id="feedback"'
# What messengers and social networks show beside a link to the page. Most of them need the whole address of a picture.
CARD = b"""
<meta property="og:title" content="Draw a digit">
<meta property="og:description" content="A neural network reads what you draw.">
<meta property="og:type" content="website">
<meta property="og:image" content="%b://%b/share.png">
<meta name="twitter:card" content="summary_large_image">"""
HOST = re.compile(rb"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,252}|\[([0-9A-Fa-f:.]{2,45})\])(?::[0-9]{1,5})?")

# An entity tag without its W/, because If-None-Match ignores whether a tag is weak.
ETAG = re.compile(rb'"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True)
class File:
    """A file, and the headers of its response."""

    content: bytes
    content_type: str
    etag: bytes

    @classmethod
    def of(cls, name: str, content: bytes) -> File:
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        if kind.startswith("text/"):
            kind += "; charset=utf-8"
        return cls(content, kind, f'"{hashlib.sha256(content).hexdigest()[:16]}"'.encode())


def read_files(*, with_feedback: bool = False) -> dict[str, File]:
    """Return every file of the pages by its name.

    Args:
        with_feedback: whether the page asks visitors if a prediction was right.
    """
    files = {path.name: File.of(path.name, path.read_bytes()) for path in sorted(WEB.iterdir()) if path.is_file()}
    if with_feedback:
        content = files[PAGES["/"]].content.replace(*FEEDBACK)
        files[PAGES["/"]] = File.of(PAGES["/"], content)
    return files


def handler(files: Mapping[str, File]) -> HTTPRouteHandler:
    """Return the handler of the pages and of their files.

    Each file is a route of its own. A path with a parameter would allow every other path too, so a POST to a path that
    does not exist would get the status 405 instead of 404.
    """
    routes = {f"/{name}": file for name, file in files.items()} | {path: files[name] for path, name in PAGES.items()}

    @get(list(routes), include_in_schema=False)
    async def page(request: AnyRequest) -> ASGIApp:
        """Respond with a file of the pages."""
        file = routes[request.scope["path"]]
        if file is files[PAGES["/"]]:
            file = with_card(file, request.scope["headers"], request.scope["scheme"])
        headers = [(b"etag", file.etag), (b"cache-control", b"no-cache")]
        if is_known(file.etag, request.scope["headers"]):
            return Response(b"", headers, status=304)
        return Response(file.content, [*headers, (b"content-type", file.content_type.encode())])

    return page


def with_card(page: File, headers: Iterable[tuple[bytes, bytes]], scheme: str) -> File:
    """Return the page with what messengers show of it, if a request says how others reach the service.

    Args:
        headers: those of the request. ``X-Forwarded-Proto`` is the protocol before a proxy that ends TLS.
        scheme: the protocol of the request.
    """
    named = dict(headers)
    host, protocol = named.get(b"host", b""), named.get(b"x-forwarded-proto", scheme.encode())
    found = HOST.fullmatch(host)
    name = (found[1] or host.partition(b":")[0]).decode() if found else "localhost"
    # Nobody else can open a link to this machine.
    if is_loopback(name) or protocol not in (b"http", b"https"):
        return page
    return File.of(PAGES["/"], page.content.replace(b"</title>", b"</title>" + CARD % (protocol, host), 1))


def is_known(etag: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether ``If-None-Match`` says that the client has the file already (RFC 9110, section 13.1.2)."""
    values = [value.strip() for name, value in headers if name == b"if-none-match"]
    return b"*" in values or any(etag in ETAG.findall(value) for value in values)
