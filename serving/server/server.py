"""The server of one worker. It extends uvicorn's server and accepts the connections itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from serving.server.connections import Connections
from serving.server.encryption import Encrypted
from serving.server.limits import LimitedProtocol
from serving.server.memory import MEMORY_INTERVAL, Spare
from serving.service.background import on_own_thread, repeated
from serving.service.keys import LOOK_INTERVAL
from serving.service.service import Service
from serving.telemetry.recorder import Recorder
from serving.tls import Credentials

if TYPE_CHECKING:
    from serving.grpc.server import GrpcServer

# Connections accepted in one turn of the event loop. The rest is accepted in the next turn, by this or another worker.
ACCEPTS = 64
# Connections accepted at shutdown. This is more than the kernel holds.
LAST_ACCEPTS = 8192
# The kernel buffers this many bytes of unread responses for each connection. By default it buffers megabytes, which
# count as memory of the container and hide from the service that the client does not read.
SEND_BUFFER = 131_072
# The same for what arrives encrypted, because it counts only after it is decrypted.
ENCRYPTED_RECEIVE_BUFFER = 65_536
# Seconds without accepting if the process has no file descriptor left, and no connection can make room.
PAUSE = 0.5
# Seconds at shutdown in which the connections that were just accepted read what has arrived.
LAST_LOOK = 0.05


class Server(uvicorn.Server):
    """Serves connections from sockets that listen already. With ``credentials``, those over TCP are encrypted.

    uvloop would accept only one connection in each turn of its loop. Other connections would wait in the kernel, where
    no limit counts them: they would not be rejected, would delay every probe, and would be reset at shutdown.
    """

    def __init__(self, config: uvicorn.Config, credentials: Credentials | None = None) -> None:
        super().__init__(config)
        self._credentials = credentials
        self._background = contextlib.AsyncExitStack()
        self.server_state: Connections = Connections()
        self._accepting: set[asyncio.Task[object]] = set()
        self.announce: Callable[[], None] = lambda: None
        """Called when the server accepts connections."""
        self._grpc: GrpcServer | None = None
        service: Service = config.app.state.service  # type: ignore[union-attr]
        if service.settings.grpc_port >= 0:
            from serving.grpc.server import GrpcServer

            self._grpc = GrpcServer(service, credentials)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and accept connections from ``sockets``."""
        if self._grpc:
            await self._grpc.start()
        # Without sockets, uvicorn starts the application and nothing else.
        await super().startup(sockets=[])
        service: Service = self.config.loaded_app.state.service
        self.server_state.start(service.recorder)
        if self._credentials:
            await self._background.enter_async_context(follow(self._credentials, service.recorder))
        await self._background.enter_async_context(return_memory(service.recorder))
        for listener in sockets or []:
            listener.setblocking(False)
            self._listen(listener)
        self.announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept the last connections, respond to every request that has arrived, and stop."""
        loop = asyncio.get_running_loop()
        ending = [loop.create_task(self._grpc.stop())] if self._grpc else []
        for listener in sockets or []:
            loop.remove_reader(listener)
            self._accept(listener, LAST_ACCEPTS)
            listener.close()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await asyncio.sleep(LAST_LOOK)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        # uvicorn then ends the application, with the process that decodes pictures, which calls of gRPC may use.
        await asyncio.gather(*ending)
        await super().shutdown(sockets=sockets)
        self.server_state.stop()
        await self._background.aclose()

    def _listen(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, ACCEPTS)

    def _accept(self, listener: socket.socket, count: int) -> None:
        """Accept up to ``count`` waiting connections. Another worker may take some of them."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            try:
                connection, _ = listener.accept()
            except ConnectionAbortedError:
                continue
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # There is no descriptor or memory left. If an idle connection makes room, the loop calls again at once.
                if self.server_state.make_room():
                    return
                # Otherwise the listener would wake the loop for nothing.
                loop.remove_reader(listener)
                loop.call_later(PAUSE, self._listen, listener)
                return
            connection.setblocking(False)
            task = loop.create_task(self._connect(connection))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            protocol: Callable[[], asyncio.Protocol] = self._protocol
            if self._credentials and connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ENCRYPTED_RECEIVE_BUFFER)
                protocol = partial(self._encrypted, self._credentials)
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        return LimitedProtocol(self.config, self.server_state, self.lifespan.state)

    def _encrypted(self, credentials: Credentials) -> asyncio.Protocol:
        failed, turns = partial(self.server_state.ended, "tls"), self.server_state.turns
        return Encrypted(self._protocol(), credentials.context, failed, turns)


def follow(credentials: Credentials, recorder: Recorder) -> AbstractAsyncContextManager[None]:
    """Read the certificate again whenever it changes, inside the ``async with`` statement."""
    return repeated("tls", LOOK_INTERVAL, partial(on_own_thread, credentials.look), recorder)


def return_memory(recorder: Recorder) -> AbstractAsyncContextManager[None]:
    """Return memory that large requests have used to the system, inside the ``async with`` statement."""
    # Not a thread of low priority: it holds the lock of the allocator, for which the event loop may have to wait.
    return repeated("memory", MEMORY_INTERVAL, partial(asyncio.to_thread, Spare().look), recorder)
