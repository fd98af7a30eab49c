"""gRPC with TLS: the certificate, its renewal, and client certificates."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import re

import grpc
import pytest

from serving.api.app import create_service
from serving.grpc.server import GrpcServer
from serving.settings import Settings
from serving.tls import Credentials
from tests.serving.grpc.door import Client


@contextlib.asynccontextmanager
async def encrypted(**settings):
    """Serve over gRPC with TLS. Yield the address and the credentials."""
    given = Settings(grpc_port=0, **{name: str(value) for name, value in settings.items()})
    credentials = Credentials(given)
    server = GrpcServer(create_service(given, ()), credentials)
    await server.start()
    try:
        yield f"localhost:{server.port}", credentials
    finally:
        await server.stop()


async def is_ready(address, root, certificate=None):
    """Return whether the service is ready, as a client says that trusts ``root``."""
    pair = [path.read_bytes() for path in reversed(certificate)] if certificate else [None, None]
    trust = grpc.ssl_channel_credentials(root.read_bytes(), *pair)
    async with grpc.aio.secure_channel(address, trust) as channel:
        return (await Client(channel).call("ServerReady", timeout=10)).ready


def test_client_that_trusts_the_issuer_is_served(authority):
    certificate, key = authority.issue("grpc")

    async def test():
        async with encrypted(tls_cert=certificate, tls_key=key) as (address, _):
            assert await is_ready(address, authority.file)

    asyncio.run(test())


def test_files_may_begin_with_a_byte_order_mark(authority):
    files = authority.issue("marked")
    for path in files:
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())

    async def test():
        async with encrypted(**dict(zip(("tls_cert", "tls_key"), files, strict=True))) as (address, _):
            assert await is_ready(address, authority.file)

    asyncio.run(test())


@pytest.mark.parametrize("workers", [1, 2])
def test_certificate_that_grpc_cannot_use_is_named_in_one_line(authority, run, workers):
    certificate, key = authority.issue("trusted")
    # OpenSSL reads this kind of PEM too.
    certificate.write_text(certificate.read_text().replace(" CERTIFICATE-", " TRUSTED CERTIFICATE-"))
    flags = ("--tls-cert", certificate, "--tls-key", key, "--workers", workers, "--log-level", "error")
    done = run("mnist-serve", "--port", 0, "--grpc-port", 0, *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(f"Error: cannot listen on .* for gRPC with the certificate in {certificate}: .*\n", done.stderr)


def test_renewed_certificate_is_used_by_the_next_connection(authority, tmp_path):
    certificate, key = authority.issue("renewed")

    async def test():
        async with encrypted(tls_cert=certificate, tls_key=key) as (address, credentials):
            assert await is_ready(address, authority.file)
            other = type(authority)(tmp_path)
            for path, new in zip((certificate, key), other.issue("renewed"), strict=True):
                path.write_bytes(new.read_bytes())
            credentials.look()
            assert await is_ready(address, other.file)
            with pytest.raises(grpc.aio.AioRpcError):
                await is_ready(address, authority.file)

    asyncio.run(test())


def test_client_without_a_certificate_is_rejected_where_one_is_asked_for(authority):
    certificate, key = authority.issue("asking")

    async def test():
        async with encrypted(tls_cert=certificate, tls_key=key, tls_client_ca=authority.file) as (address, _):
            with pytest.raises(grpc.aio.AioRpcError):
                await is_ready(address, authority.file)
            assert await is_ready(address, authority.file, authority.issue("client", "digits@example.org"))

    asyncio.run(test())
