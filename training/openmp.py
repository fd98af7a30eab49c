"""Settings of OpenMP, whose threads share the work of each operation of torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# Multiplications of a step below which it takes one thread. A step of the mlp with 128 images has 2.9 million. With two
# threads it takes one and a half times as long on an idle machine, and longer on a busy one, because the threads wait
# for each other after each of its small operations. One of the cnn with 128 images has 500 million.
LEAST_FOR_THREADS = 10_000_000


def sleep_while_waiting() -> None:
    """Let a thread of OpenMP sleep while it waits for the others. Call this before torch is imported.

    By default it waits in a loop, which is a little faster while nothing else runs. When other work shares the
    processor, the loop takes the time that the other threads need: a step of the mlp took 87 ms instead of 5 ms.
    A user's own OMP_WAIT_POLICY is kept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def threads_for(multiplications: int) -> int:
    """Return the number of threads for steps of this many multiplications."""
    import torch

    return 1 if multiplications < LEAST_FOR_THREADS else torch.get_num_threads()


@contextmanager
def at_most_threads(count: int) -> Iterator[None]:
    """Compute on at most ``count`` threads while the block runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(min(before, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
