"""Turn the exceptions of health and reflection into a status, and count what their clients leave unread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from serving.errors import ServiceError
from serving.grpc.sending import Sending


def guarded(behaviour: Callable[[Any], Awaitable[Any]], sending: Sending) -> Callable[[Any, Any], Awaitable[Any]]:
    """Return the function for gRPC that calls ``behaviour`` with the context of a call."""

    async def respond(_: Any, context: Any) -> Any:
        try:
            content = await behaviour(context)
        except ServiceError as error:
            await sending.rejection(context, error)
        sending.begin(context)
        return content

    return respond
