"""Which requests reach the routes: those with a canonical path, for a host name of this service.

A proxy may forbid a path such as ``/metrics``. It must not be possible to write the same path in another way that the
proxy does not know and the service does. So each resource has exactly one path here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from serving.errors import MisdirectedError, quoted
from serving.hosts import is_loopback
from serving.settings import Settings

# No route, no page file and no model name contains another character, so none needs a percent sign. The longest path
# of a route has about 180 characters. Litestar keeps paths in a cache, which this length also bounds.
MAX_PATH = 256
_CANONICAL = re.compile(rb"/|(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")

# The end of a Host header. A service may be reached on other ports than its own, through a proxy or a container.
_PORT = r"(?::[0-9]{0,5})?"
_LOOPBACK = [r"(?:[a-z0-9_-]+\.)*localhost\.?", r"127(?:\.[0-9]{1,3}){3}", r"\[::1\]"]


def is_canonical(raw_path: bytes) -> bool:
    """Return whether a path is written in the only way that the service accepts.

    The path has no empty segment, no slash at its end, no ``.`` and ``..``, no percent-encoding, no backslash, and no
    other character that a URL does not allow in a path.
    """
    # The client of Litestar for tests appends the query.
    path = raw_path.partition(b"?")[0]
    return len(path) <= MAX_PATH and _CANONICAL.fullmatch(path) is not None


class Hosts:
    """The host names that requests may name in their ``Host`` header.

    Any web page can have a host name that points to 127.0.0.1. A browser then lets the page read the responses of a
    service on this machine, but it sends the page's host name, which this service does not have.

    Without the setting ``allowed_hosts``, a service on a loopback address allows the names of loopback, and any other
    service allows every name. So does a Unix socket, which no browser can reach.
    """

    def __init__(self, settings: Settings) -> None:
        names = [name.strip() for name in settings.allowed_hosts.split(",") if name.strip()]
        self._are_given = bool(names)
        self._allowed: re.Pattern[bytes] | None = None
        if "*" in names or not (names or is_loopback(settings.host)):
            return
        if is_loopback(settings.host):
            names.append(settings.host)
        alternatives = "|".join([*_LOOPBACK, *map(_alternative, names)])
        self._allowed = re.compile(f"(?:{alternatives}){_PORT}".encode(), re.IGNORECASE)

    def check(self, headers: Iterable[tuple[bytes, bytes]], server: tuple[str, int | None] | None) -> None:
        """Check every ``Host`` header. HTTP/1.0 allows a request without one.

        Args:
            server: the address and the port that the client has connected to. A Unix socket has no port.

        Raises:
            MisdirectedError: the service does not have this name.
        """
        if self._allowed is None or not (self._are_given or (server and server[1])):
            return
        for name, value in headers:
            if name == b"host" and not self._allowed.fullmatch(value):
                raise MisdirectedError(
                    f"Host {quoted(value.decode('latin-1'))}: not a name of this service; "
                    "the operator can allow it with --allowed-hosts (MNIST_ALLOWED_HOSTS)"
                )


def _alternative(name: str) -> str:
    """Return the expression for one allowed name. ``*.example.org`` stands for every name below ``example.org``."""
    if name.startswith("*."):
        return rf"(?:[a-z0-9_-]+\.)+{re.escape(name[2:])}\.?"
    if ":" in name and not name.startswith("["):
        return rf"\[{re.escape(name)}\]"
    return re.escape(name) + r"\.?"
