"""Windows: what was counted within the last hour and the last day, from counts that only rise.

This file imports no library, because the supervisor uses it and must need little memory.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection

from serving.telemetry.samples import BinCounts

WINDOWS = {"1h": 3600, "1d": 86400}
"""The length of each window in seconds, by its name."""
# The beginning of a window moves by this part of its length. So a window is at most a sixtieth longer than it says.
STEPS = 60


class Windows:
    """Keeps the counts at the beginning of each window. The counts of the window are those of now minus these.

    A service that has run for less than a window counts from its start. One thread at a time may call the methods that
    change the counts.

    Args:
        clock: returns seconds that never fall.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._notes: dict[str, deque[tuple[float, BinCounts]]] = {name: deque([(clock(), {})]) for name in WINDOWS}

    def note(self, counts: Callable[[], BinCounts]) -> None:
        """Keep the counts of this moment, if it is time. Call this at least every few seconds."""
        now, found = self._clock(), None
        for name, seconds in WINDOWS.items():
            notes = self._notes[name]
            if now - notes[-1][0] >= seconds / STEPS:
                found = counts() if found is None else found
                notes.append((now, found))
            while len(notes) > 1 and notes[1][0] <= now - seconds:
                notes.popleft()

    def keep(self, versions: Collection[str]) -> None:
        """Forget the counts of all other versions."""
        for name, notes in self._notes.items():
            kept = [(when, {key: found[key] for key in found.keys() & versions}) for when, found in list(notes)]
            self._notes[name] = deque(kept)

    def beginnings(self) -> dict[str, BinCounts]:
        """Return the counts at the beginning of each window."""
        return {name: notes[0][1] for name, notes in self._notes.items()}
