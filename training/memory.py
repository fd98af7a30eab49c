"""Memory: settings that make commands faster, and the errors of a machine with too little."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h, and the largest values that they take.
TRIM_THRESHOLD, LARGEST_TRIM = -1, 2**31 - 1
MMAP_THRESHOLD, LARGEST_MMAP = -3, 32 * 2**20


def keep_freed_memory() -> None:
    """Make glibc keep the memory that a training step frees, and give it to the next step.

    By default glibc returns large blocks to the kernel, and the kernel fills the new pages of each step with zeros.
    Without glibc this function does nothing. It changes the whole process, so only commands call it.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc and hasattr(libc, "mallopt"):
        libc.mallopt(TRIM_THRESHOLD, LARGEST_TRIM)
        libc.mallopt(MMAP_THRESHOLD, LARGEST_MMAP)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Turn Python's garbage collector off while the block runs: for imports of large libraries, and for an export.

    They make hundreds of thousands of objects, hardly any of which is garbage. The collector would look at them again
    and again, for a sixth of the time of an import. It also leaves them alone afterwards.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def is_memory_error(error: Exception) -> bool:
    """Return whether the machine had not enough memory. torch has no class of its own for that on the CPU."""
    words = ("can't allocate memory", "out of memory", "bad_alloc", "can't start new thread")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
