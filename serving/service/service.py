"""The Service: the parts of one application, and what changes or reports on all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from serving.errors import ForbiddenError
from serving.feedback.store import Store
from serving.inference.admission import Admission, Held
from serving.inference.decoder import Decoder
from serving.inference.pipeline import Pipeline
from serving.inference.threads import to_its_end
from serving.models.repository import Change, Repository
from serving.service.background import RepositoryLock, SerialQueue, on_own_thread
from serving.service.keys import Keys
from serving.service.peers import ModelChange, Peers
from serving.service.rollout import Rollouts
from serving.service.rollout_report import Report
from serving.settings import Settings
from serving.telemetry.recorder import Recorder
from serving.telemetry.traces import Tracer

# Corrections that one worker may have to store at a time.
MAX_STORING = 4

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
    feedback: Store | None = None
    """The corrections of visitors, if they may be stored."""
    storing: SerialQueue = field(default_factory=lambda: SerialQueue(MAX_STORING), repr=False)
    """The corrections that wait to be stored."""
    tracer: Tracer | None = None
    """None if no traces are sent."""
    draining: bool = False
    """True after SIGTERM: the service is no longer ready, but still responds."""
    peers: Peers = field(default_factory=Peers)
    """The other workers."""
    rollouts: Rollouts | None = None
    """None: the newest version responds at once."""
    # Held while the repository changes and while the changes are recorded, so that both have the same order.
    _changing: RepositoryLock = field(default_factory=RepositoryLock, repr=False)
    _reporting: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def report(self, work: Callable[[], T]) -> T:
        """Return a report on the metrics, made on a thread, because it may read files. Make one report at a time."""
        async with self._reporting:
            return await to_its_end(asyncio.create_task(on_own_thread(work)))

    def scan(self) -> None:
        """Load new model versions, drop removed ones, and record these changes."""
        with self._changing:
            if self.rollouts:
                self.rollouts.follow()
            self._record(self.repository.scan())
            if self.rollouts:
                self.rollouts.begin()

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

    def decide_rollout(self, decide: Callable[[Rollouts], None], name: str) -> None:
        """Make a decision about the rollout of a model, and let every worker follow it.

        Raises:
            ForbiddenError: the service has no rollouts.
            ModelUnavailableError: a worker has not confirmed it.
            What ``decide`` raises.
        """
        decide(self.checked_rollouts())
        self._follow(name)

    def flush_rollouts(self) -> None:
        """Add what this worker has compared to the states of the rollouts, and let all workers follow a promotion.

        Raises:
            ForbiddenError: the service has no rollouts.
            ModelUnavailableError: a worker has not confirmed a promotion.
            RolloutError: a state cannot be written. The others are written.
        """
        promoted, failure = self.checked_rollouts().flush()
        for name in promoted:
            self._follow(name)
        if failure:
            raise failure

    def report_rollout(self, name: str) -> Report:
        """Return the report on the rollout of a model, with the sample of all workers.

        Raises:
            ForbiddenError: the service has no rollouts.
            ModelNotFoundError, ModelUnavailableError: no version of it is loaded.
            RolloutError: the state cannot be read or written.
        """
        rollouts = self.checked_rollouts()
        self.repository.get(name)
        others = self.peers.disagreements(name)
        self.flush_rollouts()
        return rollouts.report(name, [*rollouts.sample(name), *others])

    def checked_rollouts(self) -> Rollouts:
        """Return the rollouts.

        Raises:
            ForbiddenError: the service has none.
        """
        if self.rollouts is None:
            raise ForbiddenError("rollouts are off, so the newest version responds: start the service with --rollout")
        return self.rollouts

    def _follow(self, name: str) -> None:
        self.apply("rollout", name)
        self.peers.change("rollout", name)

    def apply(self, change: ModelChange, name: str) -> None:
        """Load or unload a model in this worker, or follow its rollout.

        Raises:
            ModelNotFoundError: there is no such model.
            ModelUnavailableError: this worker cannot follow the rollout.
        """
        if change == "rollout":
            self.scan()
            self.checked_rollouts().check(name)
            return
        with self._changing:
            models = [model for model in self.repository.models() if model.name == name]
            self._record(self.repository.load(name) if change == "load" else self.repository.unload(name))
        if change == "unload":
            end = time.monotonic() + self.settings.grace
            for model in models:
                model.drain(max(0.0, end - time.monotonic()))

    def _record(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.recorder.model_changed(*change)
        self.recorder.models_are(self.repository.models(), self.repository.rejected())
        self.recorder.scanned(is_readable=self.repository.is_readable)
