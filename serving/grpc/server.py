"""The gRPC server of one worker. It runs on the event loop of the HTTP server and shares its Service."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc

from serving.errors import AddressError
from serving.grpc import health, reflection
from serving.grpc.calls import Calls
from serving.grpc.messages import SERVICE
from serving.grpc.receiving import Receiving, limit_of
from serving.grpc.sending import Sending
from serving.service.service import Service
from serving.settings import Settings
from serving.tls import Credentials, Pem

# Calls in flight on one connection. A client that has more waits with them. Twelve clients with 128 calls each took a
# worker to 300 MB.
MAX_STREAMS = 32
# Calls in flight in one worker, predictions and all others. Further ones are rejected.
MAX_CALLS = 1024
# Calls that have arrived and that Python has not seen yet. As many clients may call at the same moment. Their metadata
# may have no other limit; see below.
MAX_PENDING = 512
# A client must acknowledge the settings of its connection within this time. Before, gRPC takes 16 MB of metadata for a
# call, which arrive in a few bytes if the client repeats them by their index (HPACK).
SETTINGS_MILLISECONDS = 2000
# A client may send a ping this often, in milliseconds, also between calls. By default gRPC ends a connection on which
# pings come more often than every five minutes.
PING_INTERVAL = 10_000
# The largest number that gRPC takes for an option.
MOST = 2**31 - 1
# Bytes of a call that may arrive before the service reads its message.
RECEIVE_BYTES = 131_072


class GrpcServer:
    """Serves the methods of the protocol, health and reflection on ``settings.grpc_port``.

    With ``credentials``, the connections are encrypted.
    """

    def __init__(self, service: Service, credentials: Credentials | None = None) -> None:
        self._service = service
        self._credentials = credentials
        settings = service.settings
        self._receiving = Receiving(limit_of(settings, service.admission.max_large), settings.request_timeout)
        self._sending = Sending(settings.write_timeout, service.held, service.recorder)
        self._calls = Calls(service, self._receiving, self._sending)
        self._health = health.Health(service, self._receiving, self._sending)
        self._reflection = reflection.Reflection(self._receiving, self._sending)
        self._looking: asyncio.Task[None] | None = None
        self._server: Any = None
        self.port = service.settings.grpc_port

    async def start(self) -> None:
        """Start to serve.

        Raises:
            AddressError: the port cannot be used.
        """
        settings = self._service.settings
        # It logs every call whose client disconnects at an unlucky moment, so a client could fill the disk.
        logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
        self._server = server = grpc.aio.server(options=options(settings), maximum_concurrent_rpcs=MAX_CALLS)
        handlers = {
            SERVICE: self._calls.handlers(),
            health.NAME: self._health.handlers(),
            reflection.NAME: self._reflection.handlers(),
        }
        for name, methods in handlers.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        address = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            target = f"{address}:{settings.grpc_port}"
            if self._credentials:
                self.port = server.add_secure_port(target, encryption(self._credentials))
            else:
                self.port = server.add_insecure_port(target)
        except RuntimeError as error:
            # gRPC gives the same error if it cannot use a certificate.
            by = f" with the certificate in {settings.tls_cert}" if self._credentials else ""
            raise AddressError(f"cannot listen on {address}:{settings.grpc_port} for gRPC{by}: {error}") from error
        self._sending.port = self.port
        self._looking = asyncio.create_task(self._sending.look())
        await server.start()

    async def stop(self) -> None:
        """Accept no further call. Return when the calls in flight have ended, or after ``settings.grace`` seconds."""
        self._health.stop()
        self._receiving.stop()
        await self._server.stop(self._service.settings.grace)
        if self._looking:
            self._looking.cancel()


def encryption(credentials: Credentials) -> Any:
    """Return the same credentials for gRPC. Each handshake uses the newest contents of the files."""

    class Handshakes:
        def __init__(self) -> None:
            self.used: Pem | None = None

        def configuration(self) -> Any:
            """Return what has changed since the last handshake, None if nothing has."""
            pem = credentials.pem
            if pem is self.used:
                return None
            self.used = pem
            return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.client_ca or None)

    handshakes = Handshakes()
    return grpc.dynamic_ssl_server_credentials(
        handshakes.configuration(),
        handshakes.configuration,
        require_client_authentication=bool(credentials.pem.client_ca),
    )


def options(settings: Settings) -> list[tuple[str, int]]:
    """Return gRPC's options for the limits of the settings, which may be larger than gRPC can count."""
    return [(name, min(value, MOST)) for name, value in _options(settings)]


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        # All workers listen on the same port, and the kernel divides the connections among them.
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.max_body),
        ("grpc.max_metadata_size", settings.max_head),
        ("grpc.absolute_max_metadata_size", settings.max_head),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        # This protection ends calls of honest clients (UNAVAILABLE) while ended calls still have memory. Without it,
        # calls that are begun and reset without pause keep others out (HTTP/2 rapid reset), for a while.
        ("grpc.http.overload_protection", 0),
        # Answer each reset with a ping. gRPC then reads no more from a connection with 10,000 resets and no other call.
        # Bursts of honest clients do not notice it.
        ("grpc.http2.ping_on_rst_stream_percent", 100),
        ("grpc.server.max_pending_requests", MAX_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
        ("grpc.http2.settings_timeout", SETTINGS_MILLISECONDS),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", settings.request_timeout * 1000),
        ("grpc.max_connection_idle_ms", settings.keep_alive * 1000),
        # Find out whether a silent client is still there.
        ("grpc.keepalive_time_ms", settings.keep_alive * 1000),
        ("grpc.keepalive_timeout_ms", settings.write_timeout * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_INTERVAL),
        # Receive a batch of 64 images in few pieces, and do not measure the network with pings: this saves a tenth of
        # the CPU time of such a call.
        ("grpc.http2.max_frame_size", RECEIVE_BYTES),
        ("grpc.http2.lookahead_bytes", RECEIVE_BYTES),
        ("grpc.experimental.tcp_read_chunk_size", RECEIVE_BYTES // 2),
        # By default gRPC doubles what it receives at once, up to megabytes for each connection. Headers have no flow
        # control, so 48 clients whose headers never end took a worker to 720 MB. grpcio before 1.84 ignores this.
        ("grpc.experimental.tcp_max_read_buffer_size", RECEIVE_BYTES),
        ("grpc.http2.bdp_probe", 0),
    ]
