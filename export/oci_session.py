"""Requests to a registry within limits: of time, of bytes, and of who gets the credentials.

The package oras follows the redirects and the addresses that a registry names, and asks the token server that a
registry names. All these requests go through the session of its client, and there through the adapter below.
"""

from __future__ import annotations

import inspect
import ipaddress
import time
import urllib.parse
from typing import Any

import requests
import requests.adapters
from oras.auth.utils import parse_auth_header
from oras.provider import Registry

from serving.errors import quoted
from serving.models.bundle import MAX_BUNDLE_BYTES

# Seconds for a connection, and for each piece of a response.
TIMEOUT = 30
# A response may take RESPONSE_SECONDS, and one second more for each SLOWEST bytes that have arrived.
RESPONSE_SECONDS, SLOWEST = 60, 20_000
# Bytes of an error, a token or anything else but a blob or a manifest.
MAX_SMALL_BYTES = 1_000_000


class LimitError(Exception):
    """A response breaks a limit, or a registry wants to pass credentials on, or a login that oras does not know."""


class Client(Registry):  # type: ignore[misc]
    """The client of oras, which tries a request again only once, and only if the registry fails.

    oras itself would try five times within two minutes, also after an error that lasts.
    """

    def send_password(self) -> None:
        """Send the user's name and password with each request, for a registry that wants them and no token."""
        if password := getattr(self.auth, "_basic_auth", None):
            self.session.headers["Authorization"] = f"Basic {password}"

    def do_request(self, *args: Any, **more: Any) -> requests.Response:
        once = inspect.unwrap(Registry.do_request)
        response: requests.Response = once(self, *args, **more)
        if response.status_code < 500:
            return response
        time.sleep(1)
        return once(self, *args, **more)  # type: ignore[no-any-return]


def host_of(registry: str) -> str:
    """Return the host of a registry, which may have a port. An IPv6 address loses its brackets."""
    return urllib.parse.urlsplit(f"//{registry}").hostname or registry


class Adapter(requests.adapters.HTTPAdapter):
    """Sends the requests to a registry.

    Args:
        registry: its host and port.
        plain: whether requests may go over HTTP.
    """

    def __init__(self, registry: str, *, plain: bool) -> None:
        super().__init__()
        self._registry = registry
        self._host = host_of(registry)
        self._plain = plain

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        """Send a request and return the response, whose body is read within the limits.

        Raises:
            LimitError: the registry wants the password to go to a stranger, or a login of a kind that oras lacks.
        """
        self._protect_credentials(request)
        is_streamed = more.get("stream", False)
        more |= {"stream": True, "timeout": more.get("timeout") or TIMEOUT}
        response = super().send(request, *args, **more)
        is_content = is_streamed and response.status_code == requests.codes.ok
        response.raw = _Body(response.raw, MAX_BUNDLE_BYTES if is_content else MAX_SMALL_BYTES)
        if not is_content:
            # This reads it, so that its connection is free for the next request.
            _ = response.content
        # At /v2/, some registries ask for a login although their images are public.
        if response.status_code == requests.codes.unauthorized and request.path_url != "/v2/":
            _check_login(response)
        return response

    def _protect_credentials(self, request: requests.PreparedRequest) -> None:
        """Let only the registry and hosts of its domain have credentials. A request to others goes without a token."""
        url = urllib.parse.urlsplit(request.url or "")
        is_known = is_same_domain(url.hostname or "", self._host) and (self._plain or url.scheme == "https")
        if is_known or "Authorization" not in request.headers:
            return
        if not str(request.headers["Authorization"]).startswith("Bearer "):
            raise LimitError(
                f"the registry asks to send your password to {url.scheme}://{url.hostname}, which is outside its "
                "domain or not encrypted. The password was not sent. If the registry needs no password, run: "
                f"docker logout {self._registry}"
            )
        del request.headers["Authorization"]


def wants_password(response: requests.Response) -> bool:
    """Return whether a registry wants a user's name and password, as those with a file of htpasswd do."""
    wanted: str = response.headers.get("WWW-Authenticate", "")
    return response.status_code == requests.codes.unauthorized and wanted.lower().startswith("basic")


def _check_login(response: requests.Response) -> None:
    """Check that a response with status 401 names a token server."""
    wanted = response.headers.get("WWW-Authenticate", "")
    if wants_password(response):
        host = urllib.parse.urlsplit(response.url).netloc
        raise LimitError(f"it wants a user and a password that it knows; run: docker login {host}")
    if not (parse_auth_header(wanted).realm or "").startswith(("http://", "https://")):
        raise LimitError(
            f"it wants a login, but names no token server: its header WWW-Authenticate is {quoted(wanted)} and not "
            'like Bearer realm="https://auth.example.org/token"'
        )


def is_same_domain(first: str, second: str) -> bool:
    """Return whether two hosts are equal or have names with the same last two parts.

    The token servers of registries have such names: ``auth.docker.io`` for ``registry-1.docker.io``.
    """
    return first == second or _domain(first) == _domain(second) != ""


def _domain(host: str) -> str:
    """Return the last two parts of a name; empty for an address and for a name with one part."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        parts = host.lower().rstrip(".").split(".")
        return ".".join(parts[-2:]) if len(parts) > 1 else ""
    return ""


class _Body:
    """The body of a response, which ends with an error if it is too long or too slow."""

    def __init__(self, raw: Any, limit: int) -> None:
        self._raw, self._limit = raw, limit
        self._start, self._size = time.monotonic(), 0

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, as soon as some have arrived."""
        content: bytes = self._raw.read1(size, decode_content=True)
        self._size += len(content)
        if self._size > self._limit:
            raise LimitError(f"it sent more than {self._limit} bytes")
        if time.monotonic() - self._start > RESPONSE_SECONDS + self._size / SLOWEST:
            raise LimitError(f"it sends too slowly, only {self._size} bytes until now; try again later")
        return content

    def __getattr__(self, name: str) -> Any:
        if name == "stream":  # Without this method, requests uses read().
            raise AttributeError(name)
        return getattr(self._raw, name)
