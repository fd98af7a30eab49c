"""The cost of a picture decides where it is decoded, and a picture that takes too long ends at its deadline."""

from __future__ import annotations

import asyncio
import gc
import itertools
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from serving.errors import DeadlineExceededError, InputTooLargeError, OverloadedError, PictureError
from serving.inference import decoder, decoder_process
from serving.inference.decoder import Decoder
from serving.inference.decoder_process import DecoderProcess, Session
from serving.inference.threads import THREADS, ThreadPool
from serving.pictures import process
from serving.pictures.header import read_header
from serving.pictures.mnist_form import to_mnist_form
from serving.pictures.number_form import to_number_page
from serving.settings import Settings
from tests.serving.pictures.files import RGB, RGBA, black_png, slow_pgm, webp_of_codes
from tests.support import picture, until

SMALL = black_png(40, 40)
# Thousands of pieces of ink in a small picture.
SPECKS = picture(np.where(np.add.outer(np.arange(96) % 2, np.arange(96) % 2) == 0, 0, 255).astype(np.uint8))
MODERATE = black_png(900, 900)
LARGE = black_png(1500, 1500, colour=RGB)
SLOW = slow_pgm()
# Far more than any of these pictures takes.
LONG = 60.0
# A slow picture passes its deadline by itself, or because other programs use the cores.
TOO_LATE = (DeadlineExceededError, OverloadedError)


def decode(pictures, seconds=LONG, **settings):
    async def run():
        decodes = Decoder(Settings(**settings), ThreadPool(16))
        try:
            return await decodes.decode(pictures, time.monotonic() + seconds)
        finally:
            await decodes.close()

    return asyncio.run(run())


def with_process(use):
    """Run ``use(decoder process, a function that decodes with it)``."""

    async def run():
        decodes = DecoderProcess(Settings.max_pixels)
        try:
            return await use(decodes, lambda content, s=LONG: in_session(decodes, content, s))
        finally:
            await decodes.close()

    return asyncio.run(run())


async def in_session(decodes, content, seconds=LONG):
    async with decodes.session(time.monotonic() + seconds) as session:
        return await session.decode(content)


async def busy_process(decodes):
    """Return the process when a picture has its turn."""
    while not decodes._lock.locked():
        await asyncio.sleep(0)
    return decodes._process.result()


def test_pictures_of_all_costs_come_back_in_order(digits):
    pictures = [black_png(40, 40), LARGE, MODERATE, SLOW[:16] + bytes(10), LARGE, SMALL]
    with pytest.raises(PictureError):
        decode(pictures)
    del pictures[3]
    for digit, content in zip(decode(pictures), pictures, strict=True):
        expected = to_mnist_form(content, Settings.max_pixels)
        np.testing.assert_array_equal(digit.image, expected.image)
        assert digit.reason == expected.reason


def test_large_scan_with_a_dark_edge_is_no_digit():
    page = np.full((1500, 1500), 255, np.uint8)
    page[:, :20] = 0
    assert [digit.reason for digit in decode([picture(page)])] == ["no digit"]


def test_only_small_pictures_are_decoded_on_the_event_loop(monkeypatch):
    places = []

    async def in_process(self, content, how):
        places.append("process")
        return to_mnist_form(content, Settings.max_pixels)

    async def on_thread(self, work):
        places.append("thread")
        return work()

    monkeypatch.setattr(Session, "decode", in_process)
    monkeypatch.setattr(ThreadPool, "do", on_thread)
    used = {}
    for name, pictures in {
        "small": [SMALL],
        "many small": [SMALL] * 50,
        "many pieces": [SPECKS],
        "moderate": [MODERATE],
        "many bytes": [SMALL[:-12] + bytes(20_000)],
        "large": [LARGE],
        "slow": [b"P5 300 300 15\n" + bytes(90_000)],
        "very many bytes": [SMALL[:-12] + bytes(2_000_000)],
        "few codes": [webp_of_codes(100, 100)],
        "many codes": [webp_of_codes(160, 160)],
        "very many codes": [webp_of_codes(280, 220)],
    }.items():
        places.clear()
        decode(pictures)
        used[name] = list(places)
    assert used == {
        "small": [],
        "many small": ["thread"],
        "many pieces": ["thread"],
        "moderate": ["thread"],
        "many bytes": ["thread"],
        "large": ["thread", "process"],
        "slow": ["thread", "process"],
        "very many bytes": ["thread", "process"],
        "few codes": [],
        "many codes": ["thread"],
        "very many codes": ["thread", "process"],
    }


def test_pixels_of_a_request_are_limited_in_sum():
    with pytest.raises(InputTooLargeError, match="810000 pixels together: must be at most 800000 in one request"):
        decode([black_png(300, 300)] * 9, max_request_pixels=800_000)
    with pytest.raises(InputTooLargeError, match="3200 pixels together"):
        decode([SMALL] * 2, max_request_pixels=3000)


def test_deadline_is_checked_between_pictures(monkeypatch):
    decoded = []

    def slow(picture, how, max_pixels):
        decoded.append(picture)
        time.sleep(0.2)
        return to_mnist_form(picture, max_pixels)

    monkeypatch.setattr(decoder, "prepare", slow)
    with pytest.raises(DeadlineExceededError):
        decode([SMALL] * 100, seconds=0.3)
    assert len(decoded) < 10


def test_deadline_is_checked_inside_a_page_of_numbers(monkeypatch):
    deadline = time.monotonic() + 0.1

    def slow(picture, max_pixels, check):
        while time.monotonic() <= deadline:
            pass
        check()
        return to_number_page(picture, max_pixels)

    monkeypatch.setattr(decoder, "to_number_page", slow)
    with pytest.raises(DeadlineExceededError):
        asyncio.run(Decoder(Settings(), ThreadPool(16)).read_numbers([SMALL], deadline))


@pytest.mark.parametrize(
    ("share", "short", "error"),
    [
        (0.8, 0.0, OverloadedError),
        (0.8, 1.0, DeadlineExceededError),  # The client itself allowed less than a second.
        (-1.0, 0.0, DeadlineExceededError),  # The pictures themselves kept a core busy.
    ],
)
def test_pictures_that_waited_for_a_thread_fail_for_overload(monkeypatch, share, short, error):
    monkeypatch.setattr(decoder_process, "CORE_SHARE", share)
    monkeypatch.setattr(decoder_process, "SHORT", short)
    free = threading.Event()

    async def run():
        threads = ThreadPool(16)
        busy = [asyncio.create_task(threads.run(lambda: free.wait(LONG))) for _ in range(THREADS)]
        decodes = Decoder(Settings(), threads)
        deadline = time.monotonic() + 0.05
        calls = [decodes.decode([SMALL] * 2, deadline), *(decodes.read_numbers([SMALL] * 2, deadline) for _ in "ab")]
        waiting = [asyncio.create_task(call) for call in calls]
        while time.monotonic() < deadline:
            await asyncio.sleep(0)
        free.set()
        assert {type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)} == {error}
        await asyncio.gather(*busy)

    asyncio.run(run())


def test_pictures_of_a_request_for_numbers_are_read_one_after_another(monkeypatch):
    """If the pictures of all requests took turns, all of the requests would pass their deadlines under overload."""
    pictures = {name: [name.encode() + bytes(number) for number in range(20)] for name in "abc"}
    read = []
    monkeypatch.setattr(decoder, "read_header", lambda content, side: read_header(SMALL, side))
    monkeypatch.setattr(
        decoder, "to_number_page", lambda content, *_: read.append(content) or to_number_page(SMALL, 10**6)
    )

    async def run():
        decodes = Decoder(Settings(), ThreadPool(16))
        await asyncio.gather(*(decodes.read_numbers(each, time.monotonic() + LONG) for each in pictures.values()))

    asyncio.run(run())
    assert [content[:1] for content in read] == [name.encode() for name in "abc" for _ in range(20)]


def test_process_is_killed_at_the_deadline_and_the_next_picture_is_decoded():
    async def use(decodes, decode):
        started = time.monotonic()
        with pytest.raises(TOO_LATE):
            await decode(SLOW, 0.5)
        assert time.monotonic() - started < 4
        return await decode(LARGE)

    assert with_process(use).reason == "empty"


def test_picture_that_uses_a_core_for_too_long_is_ended_before_its_deadline(monkeypatch):
    monkeypatch.setattr(decoder_process, "CORE_SHARE", 0.001)

    async def use(decodes, decode):
        with pytest.raises(DeadlineExceededError):
            await decode(SLOW)
        monkeypatch.undo()
        return await decode(LARGE)

    assert with_process(use).reason == "empty"


@pytest.mark.parametrize(("short", "error"), [(0.1, OverloadedError), (0.3, DeadlineExceededError)])
def test_picture_that_gets_no_core_fails_for_overload_unless_its_deadline_is_short(monkeypatch, short, error):
    monkeypatch.setattr(decoder_process, "SHORT", short)

    async def use(decodes, decode):
        await decode(LARGE)
        decodes._process.result().send_signal(signal.SIGSTOP)
        with pytest.raises(error):
            await decode(LARGE, 0.2)
        return await decode(LARGE)

    assert with_process(use).reason == "empty"


def test_cancelled_call_keeps_its_turn_until_its_picture_is_decoded_and_costs_no_process(monkeypatch):
    asked, exchange = asyncio.Event(), decoder_process._exchange

    async def noted(*picture):
        asked.set()
        return await exchange(*picture)

    async def use(decodes, decode):
        await decode(LARGE)
        first = decodes._process.result()
        first.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(decoder_process, "_exchange", noted)
        cancelled = asyncio.create_task(decode(LARGE))
        await asyncio.wait_for(asked.wait(), LONG)
        cancelled.cancel()
        waiting = asyncio.create_task(decode(LARGE))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not cancelled.done()
        first.send_signal(signal.SIGCONT)
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert (await waiting).reason == "empty"
        assert decodes._process.result() is first

    with_process(use)


def test_cancelled_call_ends_at_its_deadline():
    async def use(decodes, decode):
        await decode(LARGE)
        decodes._process.result().send_signal(signal.SIGSTOP)
        cancelled = asyncio.create_task(decode(LARGE, 0.2))
        await busy_process(decodes)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        return await decode(LARGE)

    assert with_process(use).reason == "empty"


def test_process_that_hangs_at_its_start_is_killed_and_the_next_picture_is_decoded(monkeypatch, tmp_path):
    (tmp_path / "hangs").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "hangs").chmod(0o755)

    async def use(decodes, decode):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(tmp_path / "hangs"))
            patch.setattr(decoder_process, "START_SECONDS", 0.1)
            with pytest.raises(OverloadedError, match="cannot be decoded at the moment"):
                await decode(LARGE)
        return await decode(LARGE)

    assert with_process(use).reason == "empty"


def test_end_of_the_process_while_a_picture_is_written_is_no_error_of_the_service():
    errors = []

    async def use(decodes, decode):
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        await decode(LARGE)
        decodes._process.result().send_signal(signal.SIGSTOP)
        with pytest.raises(DeadlineExceededError):
            await decode(bytes(8_000_000), 0.2)
        await decode(LARGE)

    with_process(use)
    gc.collect()
    assert errors == []


def test_pictures_that_wait_for_the_process_keep_their_own_deadline_and_fail_for_overload(monkeypatch):
    monkeypatch.setattr(decoder_process, "SHORT", 0.0)

    async def use(decodes, decode):
        await decode(LARGE)  # The process has started.
        slow, waiting, patient = (asyncio.create_task(decode(*call)) for call in ((SLOW, 1.5), (LARGE, 0.2), (LARGE,)))
        with pytest.raises(OverloadedError):
            await waiting
        assert not slow.done()
        with pytest.raises(TOO_LATE):
            await slow
        assert (await patient).reason == "empty"

    with_process(use)


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (signal.SIGSEGV, PictureError, "its decoder has crashed"),
        (signal.SIGKILL, InputTooLargeError, "takes too much memory"),  # as the kernel does
        (signal.SIGPROF, DeadlineExceededError, "deadline"),  # as the process does itself
        (signal.SIGALRM, OverloadedError, "too many"),  # as the process does itself
    ],
)
def test_end_of_the_process_fails_only_the_picture_that_it_decodes(number, error, message):
    async def use(decodes, decode):
        await decode(LARGE)
        slow = asyncio.create_task(decode(SLOW))
        running = await busy_process(decodes)
        running.send_signal(number)
        with pytest.raises(error, match=message):
            await slow
        return await decode(LARGE)

    assert with_process(use).reason == "empty"


def test_process_that_cannot_start_is_an_error_of_the_service_and_is_tried_again(monkeypatch):
    async def use(decodes, decode):
        with monkeypatch.context() as patched:
            patched.setenv("PYTHONHOME", "/nonexistent")
            with pytest.raises(RuntimeError, match=r"ended with status 1 before it was ready$"):
                await decode(LARGE)
        return await decode(LARGE)

    assert with_process(use).reason == "empty"


def test_process_that_is_killed_at_its_start_is_for_lack_of_memory(monkeypatch, tmp_path):
    killer = tmp_path / "python"
    killer.write_text("#!/bin/sh\nkill -9 $$\n")
    killer.chmod(0o700)

    async def use(decodes, decode):
        with monkeypatch.context() as patched:
            patched.setattr("sys.executable", str(killer))
            with pytest.raises(OverloadedError, match="no memory for decoding this picture"):
                await decode(LARGE)
        return await decode(LARGE)

    assert with_process(use).reason == "empty"


def test_damaged_and_too_large_pictures_have_different_errors():
    async def use(decodes, decode):
        with pytest.raises(PictureError, match="damaged"):
            await decode(LARGE[:500])
        with pytest.raises(InputTooLargeError, match="5200x5000 pixels: must be at most"):
            await decode(black_png(5200, 5000, 1))
        return await decode(LARGE)

    assert with_process(use).reason == "empty"


def test_requests_take_turns_and_keep_them_for_all_their_pictures(monkeypatch):
    """If pictures took turns, requests with many of them would all pass their deadlines."""
    decoded = []
    original = Session.decode

    async def noted(self, content, how):
        decoded.append(content)
        return await original(self, content, how)

    monkeypatch.setattr(Session, "decode", noted)
    forms = [[black_png(1500 + i, 1500)] * 3 for i in range(3)]

    async def run():
        decodes = Decoder(Settings(), ThreadPool(16))
        try:
            await asyncio.gather(*(decodes.decode(form, time.monotonic() + LONG) for form in forms))
        finally:
            await decodes.close()

    asyncio.run(run())
    assert sorted(decoded) == sorted(content for form in forms for content in form)
    assert [len(list(same)) for _, same in itertools.groupby(decoded)] == [3, 3, 3]


def test_pictures_of_a_request_share_the_seconds_of_a_core():
    async def use(decodes, decode):
        left = []
        async with decodes.session(time.monotonic() + LONG) as session:
            for _ in range(2):
                await session.decode(black_png(4000, 4000))
                left.append(session._core_seconds)
        return left

    first, second = with_process(use)
    assert decoder_process.CORE_SHARE * LONG > first > second


def test_killed_process_has_ended_before_the_next_one_starts(monkeypatch):
    """Until it has ended, it may have 150 MB."""
    original, seen = decoder_process._start, []

    async def use(decodes, decode):
        async def start(max_pixels):
            seen.append(first.returncode)
            return await original(max_pixels)

        await decode(LARGE)
        first = decodes._process.result()
        monkeypatch.setattr(decoder_process, "_start", start)
        decodes._kill()
        await decode(LARGE)

    with_process(use)
    assert seen == [-signal.SIGKILL]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce the limit")
def test_largest_page_of_numbers_in_colour_has_room():
    async def use(decodes, decode):
        async with decodes.session(time.monotonic() + LONG) as session:
            await session.read_numbers(black_png(1100, 1100, 8, RGB))
            return await session.read_numbers(black_png(5000, 5000, 8, RGB))

    assert with_process(use).is_empty


def test_idle_process_ends_and_another_starts(monkeypatch):
    monkeypatch.setattr(decoder_process, "IDLE_SECONDS", 0.01)

    async def use(decodes, decode):
        await decode(LARGE)
        first = decodes._process.result()
        await first.wait()
        await decode(LARGE)
        assert decodes._process is None or decodes._process.result() is not first

    with_process(use)


def test_process_that_decoded_no_picture_ends_too(monkeypatch):
    """The first picture's deadline passes while the process starts, and no other picture follows."""
    monkeypatch.setattr(decoder_process, "IDLE_SECONDS", 0.01)  # Less than the start takes.

    async def use(decodes, decode):
        with pytest.raises(DeadlineExceededError):
            await decode(LARGE, 0.01)
        assert decodes._process is not None
        started = await decodes._process
        assert await started.wait() == -signal.SIGKILL

    with_process(use)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_process_does_not_depend_on_the_pictures_before():
    async def use(decodes, decode):
        peaks = []
        for depth in (8, 16, 8):
            await decode(black_png(5000, 5000, depth, RGBA))
            status = Path(f"/proc/{decodes._process.result().pid}/status").read_text()
            peaks.append(int(re.search(r"VmHWM:\s+(\d+)", status)[1]))
        return peaks

    first, _, last = with_process(use)
    assert last < 1.05 * first


def test_process_gets_no_keys(monkeypatch):
    monkeypatch.setenv("MNIST_ADMIN_KEYS", "secret")

    async def use(decodes, decode):
        await decode(LARGE)
        return Path(f"/proc/{decodes._process.result().pid}/environ").read_bytes()

    assert b"secret" not in with_process(use)


PARENT = """
import asyncio, os, signal, sys, time
from serving.inference.decoder_process import DecoderProcess
async def main():
    decodes = DecoderProcess(10**8)
    content = sys.stdin.buffer.read()
    async def decode():
        async with decodes.session(time.monotonic() + 2) as session:
            await session.decode(content)
    task = asyncio.create_task(decode())
    while decodes._process is None or not decodes._process.done():
        await asyncio.sleep(0.01)
    if sys.argv[1] == "idle":
        await task
    print(decodes._process.result().pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.mark.parametrize(("state", "content"), [("idle", LARGE), ("busy", SLOW)])
def test_process_ends_with_its_parent(state, content):
    parent = subprocess.run([sys.executable, "-c", PARENT, state], input=content, capture_output=True)
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    stat = Path(f"/proc/{int(parent.stdout)}/stat")
    until(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce the limit")
def test_memory_of_the_process_is_limited():
    program = (
        "import numpy; from serving.pictures.process import *; limit_this_process(); numpy.ones(14_000_000); "
        "numpy.ones(40_000_000)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "MemoryError" in done.stderr
    assert "40000000" in done.stderr


def test_lack_of_memory_is_reported_as_a_picture_that_is_too_large(monkeypatch):
    def fail(content, how, max_pixels):
        raise MemoryError

    monkeypatch.setattr(process, "prepare", fail)
    with pytest.raises(InputTooLargeError, match="too much memory"):
        process.parse(*process.respond(b"", 1))
