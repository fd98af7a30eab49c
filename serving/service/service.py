"""The Service: the parts of one application, and what changes or reports on all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from serving.inference.admission import Admission, Held
from serving.inference.decoder import Decoder
from serving.inference.pipeline import Pipeline
from serving.models.repository import Change, Repository
from serving.service.background import RepositoryLock, on_own_thread
from serving.service.keys import Keys
from serving.service.peers import ModelChange, Peers
from serving.settings import Settings
from serving.telemetry.recorder import Recorder

T = TypeVar("T")


@dataclass
class Service:
    """The parts of one application, shared by all its requests."""

    settings: Settings
    repository: Repository
    recorder: Recorder
    keys: Keys
    admission: Admission
    held: Held
    pipeline: Pipeline
    decoder: Decoder
    draining: bool = False
    """True after SIGTERM: the service is no longer ready, but still responds."""
    peers: Peers = field(default_factory=Peers)
    """The other workers."""
    # Held while the repository changes and while the changes are recorded, so that both have the same order.
    _changing: RepositoryLock = field(default_factory=RepositoryLock, repr=False)
    _reporting: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def report(self, work: Callable[[], T]) -> T:
        """Return a report on the metrics, made on a thread, because it may read files. Make one report at a time."""
        async with self._reporting:
            return await on_own_thread(work)

    def scan(self) -> None:
        """Load new model versions, drop removed ones, and record these changes."""
        with self._changing:
            self._record(self.repository.scan())

    def load_model(self, name: str) -> None:
        """Load a model that was unloaded in every worker, and try its rejected versions again.

        Raises:
            ModelNotFoundError, ModelUnavailableError: no version of it can be loaded.
        """
        self.apply("load", name)
        try:
            self.peers.change("load", name)
        finally:
            self.repository.get(name)  # If this worker has no version either, its own reason says more.

    def unload_model(self, name: str) -> None:
        """Unload a model in every worker. Wait until no request uses it, for at most ``settings.grace`` seconds.

        Raises:
            ModelNotFoundError: there is no such model.
            ModelUnavailableError: a worker has not confirmed it.
        """
        self.apply("unload", name)
        self.peers.change("unload", name)

    def apply(self, change: ModelChange, name: str) -> None:
        """Load or unload a model in this worker.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        models = [model for model in self.repository.models() if model.name == name]
        with self._changing:
            self._record(self.repository.load(name) if change == "load" else self.repository.unload(name))
        if change == "unload":
            for model in models:
                model.drain(self.settings.grace)

    def _record(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.recorder.model_changed(*change)
        self.recorder.models_are(self.repository.models())
        self.recorder.scanned(is_readable=self.repository.is_readable)
