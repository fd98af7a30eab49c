"""Objects that stand in for uvicorn's, where a connection does something else than uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Outgoing:
    """What uvicorn's cycle sees of the transport. Its ``close`` lets the client read the response first."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class Discarded:
    """Replaces uvicorn's cycle for a rejected request. The body of the request is dropped."""

    response_complete = True
    keep_alive = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()
