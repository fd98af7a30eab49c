"""Every exception that the service raises on purpose.

api/problems.py maps them to HTTP responses, grpc/status.py to status codes of gRPC.

ServiceError
├── SettingsError              a setting breaks its rule
├── BundleError                a model bundle is missing or altered, or its outputs differ from its golden logits
├── AddressError               the service cannot listen on its address
├── WorkerError                a worker process cannot start
├── InputsError                the names of the pictures to recognise cannot be kept
├── ResultsError               results cannot be written to a file
├── TuneError                  no settings reach the p99, or the service cannot be measured
├── ModelNotFoundError         there is no model of this name, or it has no such version
├── ModelUnavailableError      the model is known, but it is not loaded
├── RolloutError               the state of a rollout cannot be read or written
├── InputError                 the content of a request cannot be used
│   ├── PictureError           the bytes are not a picture that can be read
│   ├── InputTooLargeError     the input is larger than a limit
│   └── UnsupportedInputError  the input has a format that the service cannot read
├── NoKeyError                 the request has no valid API key
├── ForbiddenError             nobody may do this, because the operator has not allowed it
├── MisdirectedError           the request is for a host name that this service does not have
├── StorageFullError           there is no space left for corrections
├── OverloadedError            other requests leave no place, memory or time for this one
└── DeadlineExceededError      the deadline of the request passed before inference began
"""

from __future__ import annotations

import re
import reprlib
import signal

# Characters of an error's text that a client gets.
MAX_DETAIL = 2000
SEND_LESS = "send smaller pictures, or divide them among several requests"
"""The way out of a limit of one request, for messages."""


class ServiceError(Exception):
    """The base of all exceptions of the service."""


class SettingsError(ServiceError, ValueError):
    """A setting breaks its rule; the message names the setting, its value and the rule."""


class BundleError(ServiceError):
    """A bundle is missing, incomplete or altered, or its outputs on this CPU differ from its golden logits."""


class AddressError(ServiceError):
    """The service cannot listen on its address; the message gives the reason and the way out."""


class WorkerError(ServiceError):
    """A worker process cannot start; the message gives the reason."""


class InputsError(ServiceError):
    """The names of the pictures to recognise cannot be kept or used; the message gives the reason and the way out."""


class ResultsError(ServiceError):
    """Results cannot be written to a file; the message names the file and gives the reason."""


class TuneError(ServiceError):
    """No settings reach the p99 that the user names, or the service cannot be measured."""


class ModelNotFoundError(ServiceError, LookupError):
    """There is no model of this name, or it has no such version."""


class ModelUnavailableError(ServiceError, LookupError):
    """The model is known, but it is not loaded, or not every worker has loaded or unloaded it."""


class RolloutError(ServiceError):
    """The state of a rollout cannot be read or written; the message names the file and gives the reason."""


class InputError(ServiceError, ValueError):
    """The content of a request cannot be used; the message says what is wrong and what is expected."""


class PictureError(InputError):
    """The bytes are not a picture that can be read."""


class InputTooLargeError(InputError):
    """The input is larger than a limit; the message names the limit."""


class UnsupportedInputError(InputError):
    """The input has a format that the service cannot read."""


class NoKeyError(ServiceError):
    """The request has no valid API key."""


class ForbiddenError(ServiceError):
    """Nobody may do this, because the operator has not allowed it; the message names the setting that allows it."""


class MisdirectedError(ServiceError):
    """The request is for a host name that this service does not have."""


class StorageFullError(ServiceError):
    """There is no space left for corrections, or their folder cannot be written."""


class OverloadedError(ServiceError):
    """Other requests leave no place, memory or time for this one."""

    def __init__(self, text: str = "too many requests are in flight; try again in a moment") -> None:
        super().__init__(text)


class DeadlineExceededError(ServiceError):
    """The deadline of the request passed before inference began. It is the client's, or it follows --work-timeout."""

    def __init__(self, text: str = "the deadline of this request passed before inference began") -> None:
        super().__init__(text)


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, of at most 300 characters; without a text, the name of its class."""
    return f"{_lines(error)[0]:.300}"


def last_line(error: Exception) -> str:
    """Return the last line of an error's text, as :func:`first_line` does. It is the reason at a traceback's end."""
    return f"{_lines(error)[-1]:.300}"


def _lines(error: Exception) -> list[str]:
    return without_password(str(error)).strip().splitlines() or [type(error).__name__]


def without_password(text: str) -> str:
    """Return a text without the user and the password in its URLs. Logs are kept, and read by others."""
    return re.sub(r"(?<=://)[^/?#\s]*@", "", text)


def shortened(text: str, most: int = MAX_DETAIL) -> str:
    """Return a text for a client, cut at ``most`` characters, because it may repeat what the client has sent."""
    return text if len(text) <= most else f"{text[:most]}..."


def quoted(value: object) -> str:
    """Return ``repr(value)`` for an error message, cut in the middle if a client sent something long."""
    return _short.repr(value)


def ending(status: int) -> str:
    """Return how a process has ended, by its exit status or by the negative number of the signal that killed it."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def ending_at_start(status: int, way_out: str = "") -> str:
    """Return how a process has ended before it was ready.

    Args:
        way_out: a clause that says what to do if memory is short.
    """
    # The kernel kills a process when memory is short.
    hint = f"; perhaps memory was short{way_out}" if status == -signal.SIGKILL else ""
    return f"{ending(status)} before it was ready{hint}"


def printable(text: str) -> str:
    """Return ``text`` with an escape for each control character and each other character that shows nothing."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 200
