"""Run mnist-serve with a watchdog of its event loop: python -m benchmarks.watched FILE [OPTIONS OF mnist-serve]

The watchdog measures two times, in seconds, and keeps the longest of each in ``FILE`` as two float64 values. To begin a
new measurement, set both to 0.

- late: the delay of a task of the event loop that should run every few milliseconds. The task waits for everything that
  the loop does in one turn, for example for the first step of a hundred requests that arrived together.
- blocked: the time for which a single step of one request has blocked the loop. As soon as the loop is late, a thread
  checks which step runs. The time may be wrong by ``TICK``.

Time in which the operating system runs another program in place of the event loop does not count. The file
``FILE.where`` says where the longest step was.
"""

from __future__ import annotations

import asyncio
import functools
import os
import struct
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import serving.api.app

# Seconds between two turns of the task, and of the thread.
TICK = 0.005
# The thread checks the loop if the task is this late.
LATE = 2 * TICK
# A step that runs for this long is noted before its end.
ENDLESS = 1.0
SHOWN_FRAMES = 6
SHOWN_FRAMES_OF_OTHERS = 2

VARIABLE = "BENCHMARK_WATCH_FILE"


class Watchdog:
    """Watches the event loop of the thread that creates it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.get_ident()
        self._scheduler = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        self._depth = 0
        self._due = self._clock() + TICK
        """When the task wants to run next."""
        self._longest, self._where = 0.0, ""
        """The longest step since the task last ran, and its stack."""

    def start(self) -> None:
        self._task = asyncio.create_task(self._tick())
        threading.Thread(target=self._look, daemon=True).start()

    def _clock(self) -> float:
        """Return the time without the time in which the loop's thread waited for a core."""
        waited = int(os.pread(self._scheduler, 100, 0).split()[1])
        return time.perf_counter() - waited / 1e9

    async def _tick(self) -> None:
        frame: FrameType | None = sys._getframe()
        while frame := frame.f_back if frame else None:
            self._depth += 1
        while True:
            self._longest, self._where = 0.0, ""
            self._due = self._clock() + TICK
            await asyncio.sleep(TICK)
            late = self._clock() - self._due
            # No step takes longer than the whole turn. The other thread may have measured too much, because its clock
            # runs on while the loop's thread waits for a core.
            self._note(late, min(late, self._longest))

    def _look(self) -> None:
        """Measure single steps, on a thread."""
        step, began, seen, due = None, 0.0, 0.0, 0.0
        # When the loop has ended, its thread may do other things, which must not be watched.
        while not self._task.done():
            time.sleep(TICK)
            now = self._clock()
            if now - self._due < LATE:
                continue
            current = self._step()
            if self._due != due:
                # The first step that is seen in a turn may have begun with the turn.
                began, due = self._due, self._due
            elif current is not step:
                began = seen
            if current is None:
                # No Python runs: the loop itself reads from sockets, for many requests.
                began = now
            step, seen = current, now
            if now - began > self._longest:
                self._longest, self._where = now - began, self._stack()
                # Note also a step that never ends.
                if self._longest > ENDLESS:
                    self._note(now - self._due, self._longest)

    def _step(self) -> FrameType | None:
        """Return the frame of the step that the loop runs now: a callback, or a coroutine of a task."""
        frames = frames_of(sys._current_frames().get(self._thread))
        return frames[self._depth] if len(frames) > self._depth else None

    def _stack(self) -> str:
        """Return where the loop's thread is, and where the other threads are. One of them may hold the interpreter."""
        frames = sys._current_frames()
        text = stack_text(frames_of(frames.pop(self._thread, None))[self._depth :][-SHOWN_FRAMES:])
        frames.pop(threading.get_ident(), None)
        others = [frames_of(frame)[-SHOWN_FRAMES_OF_OTHERS:] for frame in frames.values() if not waits(frame)]
        return "\n".join([text, *(f"beside it, a thread:\n{stack_text(other)}" for other in others)])

    def _note(self, late: float, blocked: float) -> None:
        """Keep the times that are longer than those in the file."""
        before = read(self._path)
        write(self._path, max(late, before[0]), max(blocked, before[1]))
        if blocked > before[1]:
            self._path.with_suffix(".where").write_text(f"{blocked * 1000:.0f} ms\n{self._where}")


def frames_of(innermost: FrameType | None) -> list[FrameType]:
    """Return the frames of a stack, the outermost first."""
    frames = []
    while innermost:
        frames.append(innermost)
        innermost = innermost.f_back
    return frames[::-1]


def waits(frame: FrameType) -> bool:
    """Return whether a thread waits for something to do."""
    return frame.f_code.co_filename.endswith(("threading.py", "concurrent/futures/thread.py"))


def stack_text(frames: list[FrameType]) -> str:
    return "".join(traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format())


def reset(path: Path) -> None:
    """Begin a new measurement."""
    write(path, 0.0, 0.0)
    path.with_suffix(".where").unlink(missing_ok=True)


def write(path: Path, late: float, blocked: float) -> None:
    # Another process may read at any moment, so the file must never be empty.
    with path.open("r+b") as file:
        file.write(struct.pack("dd", late, blocked))


def read(path: Path) -> tuple[float, float]:
    """Return the longest times since the last reset: late, blocked."""
    late, blocked = struct.unpack("dd", path.read_bytes())
    return late, blocked


def watch_event_loop() -> None:
    """Let every application that this process creates start a watchdog."""
    create_app = serving.api.app.create_app

    @functools.wraps(create_app)
    def create_watched_app(*arguments: Any, **options: Any) -> Any:
        app = create_app(*arguments, **options)
        app.on_startup.append(lambda: Watchdog(Path(os.environ[VARIABLE])).start())
        return app

    serving.api.app.create_app = create_watched_app


if __name__ == "__main__":
    if len(sys.argv) == 1 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    from serving.cli import serve

    file = Path(sys.argv.pop(1))
    file.write_bytes(bytes(16))
    os.environ[VARIABLE] = str(file)
    watch_event_loop()
    serve()
