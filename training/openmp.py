"""Settings of OpenMP, whose threads share the work of each operation of torch."""

from __future__ import annotations

import os


def sleep_while_waiting() -> None:
    """Let a thread of OpenMP sleep while it waits for the others. Call this before torch is imported.

    By default it waits in a loop, which is a little faster while nothing else runs. When other work shares the
    processor, the loop takes the time that the other threads need: a step of the mlp took 87 ms instead of 5 ms.
    A user's own OMP_WAIT_POLICY is kept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
