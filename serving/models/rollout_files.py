"""The files that hold the rollout states: one for each model, shared by all workers and by all services that see it.

A file is replaced by a rename, so a reader always gets a whole state. A lock lets one process at a time change a state.
A file system that can do neither cannot hold the states: a worker could serve a version that nobody has promoted.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from serving import files, shares
from serving.errors import RolloutError
from serving.models.rollout import RolloutState

# The state of a model with a hundred labels takes about 20 kB.
MAX_BYTES = 1_000_000


class RolloutFiles:
    """Reads and changes the rollout states. These methods may wait for a disk.

    Args:
        repository: the folder of the repository. The state is a hidden file in the folder of its model.
        folder: another folder for the states; empty for none.
    """

    def __init__(self, repository: Path, folder: str) -> None:
        self._repository, self._folder = repository, Path(folder) if folder else None

    def path(self, name: str) -> Path:
        """Return the file of a model."""
        return self._folder / f"{name}.json" if self._folder else self._repository / name / ".rollout.json"

    def read(self, name: str) -> RolloutState | None:
        """Return the state of a model, or None if it has none yet.

        Raises:
            RolloutError: the file cannot be read.
        """
        path = self.path(name)
        try:
            return msgspec.json.decode(files.read(path, MAX_BYTES), type=RolloutState)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RolloutError(
                f"{path} cannot be read: {error}; delete it: a running service writes its former state again, and one "
                "that starts begins with the newest version"
            ) from error

    def change(self, name: str, change: Callable[[RolloutState | None], RolloutState | None]) -> RolloutState | None:
        """Write ``change(state)`` as the new state of a model, and return it. None leaves the file as it is.

        Raises:
            RolloutError: the file cannot be read or written.
        """
        path = self.path(name)
        try:
            if self._folder:
                self._folder.mkdir(parents=True, exist_ok=True)
            with _locked(path.with_name(f"{path.name}.lock")):
                after = change(self.read(name))
                if after is not None:
                    with shares.writing(path, rename=Path.replace) as file:
                        file.write(msgspec.json.encode(after))
        except OSError as error:
            raise RolloutError(
                f"{path} cannot be written: {error.strerror}; name another folder with --state"
            ) from error
        return after


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock among all processes inside the ``with`` statement. The system frees it when a process dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
