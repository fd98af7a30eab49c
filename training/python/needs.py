"""The message for who calls a function of training or export without the packages that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needing_torch(function: str) -> Iterator[None]:
    """Name the way out if an import in the block finds that a package is missing.

    Args:
        function: the function that needs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{function} needs {error.name}, which is not installed; run `make setup` in the source folder of this "
            "project, and use the Python in .venv",
            name=error.name,
        ) from error
