"""Which web pages may call the service (CORS), also for responses that the application does not send itself."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from litestar.config.cors import CORSConfig

EXPOSED_HEADERS = ["X-Request-ID", "Server-Timing", "Retry-After", "Inference-Header-Content-Length"]


@lru_cache(maxsize=8)
def cors_config(origins: str) -> CORSConfig | None:
    """Return Litestar's configuration for the setting ``cors_origins``; None if no other page may call the service."""
    names = [origin.strip() for origin in origins.split(",") if origin.strip()]
    return CORSConfig(allow_origins=names, expose_headers=EXPOSED_HEADERS) if names else None


def is_foreign_preflight(config: CORSConfig | None, method: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether the request is a CORS preflight from an origin that is not allowed.

    Litestar takes every OPTIONS request with an origin as a preflight.
    """
    if config is None or method != "OPTIONS":
        return False
    origin = dict(headers).get(b"origin", b"").decode("latin-1")
    return bool(origin) and not config.is_origin_allowed(origin)


def cors_headers(config: CORSConfig | None, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that Litestar adds to the response to a request with ``headers``.

    Without them a web page sees a network error instead of the status and of Retry-After.
    """
    values = dict(headers)
    origin = values.get(b"origin", b"").decode("latin-1")
    if config is None or not origin:
        return []
    found = {
        **config.simple_headers,
        "Access-Control-Allow-Headers": ", ".join(sorted(set(config.allow_headers))),
        "Access-Control-Allow-Methods": ", ".join(sorted(set(config.allow_methods))),
    }
    # The simple headers may say "*", which a browser does not accept for a request with cookies.
    is_star_enough = config.is_allow_all_origins and b"cookie" not in values
    if config.is_origin_allowed(origin) and not is_star_enough:
        found |= {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in found.items()]
