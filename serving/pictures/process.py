"""Decode pictures, one at a time, in a process that the service can kill: ``python -m serving.pictures.process``.

Decoders are large programs in C that read untrusted bytes. Some files keep them busy for minutes or make them take all
memory, and one may even crash them. In this process that costs one picture, not the service.

It reads requests from its standard input and writes responses to its standard output, until the input ends. The input
also ends if the service dies.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import struct
import sys
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from serving.contract import AS_IS, DOTTED, IMAGE_SIZE, SYMBOL, RejectionReason
from serving.errors import InputError, InputTooLargeError, PictureError
from serving.pictures.doubt import Properties
from serving.pictures.header import MAX_DECODED_BYTES
from serving.pictures.mnist_form import Digit
from serving.pictures.number_form import NumberPage, to_number_page
from serving.pictures.prepare import prepare

# What to do with a picture: prepare it in one of three ways, or look for whole numbers.
Task = Literal["symbol", "dotted", "as-is", "numbers"]
NUMBERS: Task = "numbers"
TASKS: tuple[Task, ...] = (SYMBOL, DOTTED, AS_IS, NUMBERS)
# A request: the seconds that decoding may take, the seconds of a core that it may take, the index of the task in TASKS
# and the size of the file, and then the file.
REQUEST = struct.Struct("=ddBQ")
# A response: its kind, the seconds of a core that are left and the size of its content, and then the content: the
# readings of the picture, a page of numbers, or a message.
RESPONSE = struct.Struct("=BdQ")
# A reading: its properties and its image.
PROPERTIES = struct.Struct(f"={len(Properties._fields)}d")
READING_BYTES = PROPERTIES.size + IMAGE_SIZE * IMAGE_SIZE
# Why a picture is rejected, or None.
REASONS: tuple[RejectionReason | None, ...] = (None, *get_args(RejectionReason))
# The first byte of the output says that the process is ready.
READY = b"."
# A kind is an index in REASONS, the kind of a page of numbers, or the index of an exception in ERRORS plus FIRST_ERROR.
PAGE = 99
FIRST_ERROR = 100
ERRORS = (InputError, PictureError, InputTooLargeError)

# Bytes that decoding may take in addition to the picture: copies of the file, and the parts that are converted.
OTHER_BYTES = 48_000_000
NICENESS = 10
# Seconds after which the process ends itself if nobody has killed it, because the service is dead or stuck.
SPARE_SECONDS = 0.5


def respond(content: bytes, max_pixels: int, task: Task = SYMBOL) -> tuple[int, bytes]:
    """Decode a picture file and return the kind and the content of the response."""
    try:
        if task == "numbers":
            kind, result = PAGE, to_number_page(content, max_pixels).to_bytes()
        else:
            digit = prepare(content, task, max_pixels)
            kind = REASONS.index(digit.reason)
            result = b"".join(PROPERTIES.pack(*one.properties) + one.image.tobytes() for one in (digit, *digit.others))
    except InputError as error:
        kind, result = FIRST_ERROR + ERRORS.index(type(error)), str(error).encode()
    except MemoryError:
        kind, result = FIRST_ERROR + ERRORS.index(InputTooLargeError), b"the picture takes too much memory"
    return kind, result


def parse(kind: int, result: bytes) -> Digit | NumberPage:
    """Return the digit or the page of numbers in a response, or raise the exception in it."""
    if kind >= FIRST_ERROR:
        raise ERRORS[kind - FIRST_ERROR](result.decode())
    if kind == PAGE:
        return NumberPage.from_bytes(result)
    readings = [_reading(result[at : at + READING_BYTES]) for at in range(0, len(result), READING_BYTES)]
    return readings[0]._replace(reason=REASONS[kind], others=tuple(readings[1:]))


def _reading(result: bytes) -> Digit:
    image = np.frombuffer(result, np.uint8, offset=PROPERTIES.size).reshape(IMAGE_SIZE, IMAGE_SIZE)
    return Digit(image, properties=Properties(*PROPERTIES.unpack_from(result)))


def main() -> None:
    """Respond to requests until the input ends."""
    limit_this_process()
    max_pixels = int(sys.argv[1])
    requests, responses = sys.stdin.buffer, sys.stdout.buffer
    responses.write(READY)
    responses.flush()
    while head := requests.read(REQUEST.size):
        seconds, core_seconds, task, size = REQUEST.unpack(head)
        content = requests.read(size)
        # The kernel sends the signals SIGALRM and SIGPROF, so they also end a decoder that never returns to Python.
        timers = {signal.ITIMER_REAL: seconds + SPARE_SECONDS, signal.ITIMER_PROF: core_seconds}
        for timer, limit in timers.items():
            signal.setitimer(timer, limit)
        kind, result = respond(content, max_pixels, TASKS[task])
        left = {timer: signal.setitimer(timer, 0)[0] for timer in timers}
        responses.write(RESPONSE.pack(kind, left[signal.ITIMER_PROF], len(result)))
        responses.write(result)
        responses.flush()


def limit_this_process() -> None:
    """Limit memory and priority, and end without a traceback at a time limit or when nobody reads the responses."""
    for number in (signal.SIGALRM, signal.SIGPROF, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    if sys.platform != "linux":
        return
    import resource

    # If a container still runs out of memory, the kernel should kill this process and not the service.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    held = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    limit = int(held[1]) * 1024 + MAX_DECODED_BYTES + OTHER_BYTES if held else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    # A crash of a decoder leaves no file with other people's pictures.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
