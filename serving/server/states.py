"""The states of a connection:

    state       what it waits for                  ends when                          limit of time
    IDLE        a request                          its first byte arrives: HEAD       request_timeout; after a response
                                                                                      keep_alive
    HEAD        the rest of the line and headers   they are complete: BODY, or        request_timeout
                                                   DISCARD if too many predictions
                                                   are in flight
    BODY        the rest of the body               it is complete: RESPONDING         request_timeout
    DISCARD     the rest of a rejected body        it is complete: 429, then IDLE     request_timeout
    RESPONDING  the application's response         it is sent: IDLE                   none
    ENDING      the end of what the client sends   the client closes its side         request_timeout

In any state, a client that takes no byte of its unread responses for write_timeout is disconnected. No connection has a
timer of its own: Connections looks at all of them several times a second.

A connection ends in the state ENDING if the client may still send when the last response is written. If the connection
were closed then, the system would send a reset, and the client would lose the response.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """What a connection waits for; see the table above."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    DISCARD = enum.auto()
    RESPONDING = enum.auto()
    ENDING = enum.auto()


PARTIAL = (State.HEAD, State.BODY, State.DISCARD)
