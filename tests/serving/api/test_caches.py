"""No cache of the service or of its libraries grows with what clients send."""

from __future__ import annotations

import asyncio
import functools
import gc
import tracemalloc

import pytest

from serving.api.app import create_app
from serving.settings import Settings

ROUNDS = 150
LONG = 20_000


def scope_of(path, query=b"", method="GET", headers=()):
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "scheme": "http",
        "root_path": "",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [(b"host", b"localhost"), *headers],
        "state": {},
    }


async def status_of(app, body=b"", **request):
    statuses = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope_of(**request), receive, send)
    return statuses[0]


def long(i):
    return b"%d-%b" % (i, b"x" * LONG)


def form(i):
    return {
        "path": "/predict",
        "method": "POST",
        "headers": [(b"content-type", b"multipart/form-data; boundary=%d" % i)],
        "body": b'--%d\r\ncontent-disposition: form-data; name="f%b"\r\n\r\n%b\r\n--%d--'
        % (i, b"n" * 3000, long(i), i),
    }


KINDS = {
    "short query": lambda i: {"path": "/certificate", "query": b"version=%b" % long(i)[:1000]},
    "long query": lambda i: {"path": "/certificate", "query": b"version=%b" % long(i)},
    "query of a prediction": lambda i: {"path": "/predict", "method": "POST", "query": b"model=%b" % long(i)[:3000]},
    "unread query": lambda i: {"path": "/v2", "query": b"a=%b" % long(i)},
    "query of the page": lambda i: {"path": "/", "query": b"a=%b" % long(i)},
    "query of the schema": lambda i: {"path": "/schema", "query": b"a=%b" % long(i)},
    "unknown path": lambda i: {"path": f"/{long(i).decode()}"},
    "name of a model": lambda i: {"path": f"/v2/models/{long(i)[:200].decode()}"},
    "long name of a model": lambda i: {"path": f"/v2/models/{long(i).decode()}"},
    "method": lambda i: {"path": "/v2", "method": long(i).decode()},
    "host": lambda i: {"path": "/v2", "headers": [(b"host", b"%b.localhost" % long(i))]},
    "cookie": lambda i: {"path": "/", "headers": [(b"cookie", b"a=%b" % long(i))]},
    "accepted encoding": lambda i: {"path": "/v2", "headers": [(b"accept-encoding", long(i)), (b"accept", long(i))]},
    "content type": lambda i: {"path": "/predict", "method": "POST", "headers": [(b"content-type", long(i))]},
    "known tag": lambda i: {"path": "/style.css", "headers": [(b"if-none-match", b'"%b"' % long(i))]},
    "key": lambda i: {"path": "/predict", "method": "POST", "headers": [(b"x-api-key", long(i))]},
    "origin": lambda i: {"path": "/v2", "headers": [(b"origin", b"https://%b" % long(i))]},
    "request id": lambda i: {"path": "/v2", "headers": [(b"x-request-id", b"%0100d" % i)]},
    "header name": lambda i: {"path": "/v2", "headers": [(long(i), b"1")]},
    "form": form,
}


@pytest.fixture(scope="module")
def app():
    return create_app(Settings(cors_origins="https://example.org"))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_memory_does_not_grow_with_distinct_requests(app, kind):
    async def send(rounds):
        return {await status_of(app, **kind(i)) for i in rounds}

    asyncio.run(send(range(20)))
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        assert 500 not in asyncio.run(send(range(20, ROUNDS)))
        gc.collect()
        # Most kinds of requests have sent 3 MB. Litestar's cache of routes holds a thousand short paths.
        assert tracemalloc.get_traced_memory()[0] - before < 500_000
    finally:
        tracemalloc.stop()


def test_caches_of_litestar_hold_no_queries_and_forms(app):
    async def send():
        for i in range(50):
            await status_of(app, path="/certificate", query=b"version=%d" % i)
            await status_of(app, **form(i))

    from litestar import _parsers

    caches = [value for value in vars(_parsers).values() if isinstance(value, functools._lru_cache_wrapper)]
    assert len(caches) == 3
    before = [cache.cache_info().currsize for cache in caches]
    asyncio.run(send())
    assert [cache.cache_info().currsize for cache in caches] == before
