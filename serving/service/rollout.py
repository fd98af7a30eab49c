"""The rollouts of a service: who responds to a request, who repeats it, and when a candidate is promoted.

The truth is in the files of ``RolloutFiles``. Each worker adds what it has compared to them once a second, and follows
what others have written.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from serving.errors import InputError, ModelNotFoundError, ModelUnavailableError, RolloutError, quoted
from serving.inference.comparison import Comparison
from serving.inference.findings import Findings
from serving.inference.shadow import Shadow
from serving.models import disk
from serving.models.model import Model
from serving.models.repository import Repository
from serving.models.rollout import Counts, Evidence, Pair, RolloutState, choose
from serving.models.rollout_files import RolloutFiles
from serving.service.rollout_report import Report, label_report, means
from serving.settings import Settings

# Seconds between two times at which a worker adds what it has compared to the files.
FLUSH_INTERVAL = 1.0

log = logging.getLogger("serving")


class Rollouts:
    """The rollouts of all models of a service. The methods that change or follow a state may wait for a disk."""

    def __init__(self, settings: Settings, repository: Repository, findings: Findings, shadow: Shadow) -> None:
        self._settings, self._repository, self._findings, self.shadow = settings, repository, findings, shadow
        self.header = settings.canary_header.lower().encode()
        self._files = RolloutFiles(settings.repository, settings.state)
        self._states: dict[str, RolloutState] = {}
        self.problems: dict[str, str] = {}
        """By model, why its state cannot be read or written."""

    # Requests

    def route(self, pair: tuple[Model, Model], key: str) -> tuple[Model, Comparison | None]:
        """Return the version that responds to a request, and the comparison if another version repeats the request.

        Args:
            key: requests with the same key get the same version.
        """
        stable, candidate = pair
        weight = self._weight(candidate)
        is_canary = weight > 0 and position(candidate, key) < weight
        model, other = (candidate, stable) if is_canary else (stable, candidate)
        is_repeated = self._settings.shadow >= 1 or random.random() < self._settings.shadow  # noqa: S311
        return model, Comparison(model, other, is_canary) if is_repeated else None

    def _weight(self, candidate: Model) -> float:
        state = self._states.get(candidate.name)
        return state.weights.get(candidate.version, self._settings.canary) if state else 0.0

    # Following

    def follow(self) -> None:
        """Read the states of all models, and let the repository follow them. Log a state that cannot be read."""
        states, problems = dict(self._states), {}
        try:
            names = disk.names(self._settings.repository)
        except OSError:
            names = set()  # The scan reports it.
        for name in sorted(names | states.keys()):
            try:
                state = self._files.read(name)
            except RolloutError as error:
                problems[name] = str(error)
                continue
            if state:
                states[name] = state
            elif name in self.problems:
                problems[name] = self.problems[name]  # begin() tries to write the state again.
        self._use(states, problems)

    def begin(self) -> None:
        """Write a first state for each model that has none: its newest version is stable."""
        states, problems = dict(self._states), dict(self.problems)
        for name in {model.name for model in self._repository.models()}:
            newest = self._repository.versions(name)[-1]
            if name in states and os.path.exists(self._files.path(name)):  # noqa: PTH110 (Path.exists raises errors)
                continue
            first = states.get(name) or RolloutState(newest)
            try:
                states[name] = self._files.change(name, partial(_first, first)) or first
                problems.pop(name, None)
            except RolloutError as error:
                problems[name] = str(error)
        if problems != self.problems or states != self._states:
            self._use(states, problems)

    def _use(self, states: dict[str, RolloutState], problems: dict[str, str]) -> None:
        for name, problem in problems.items():
            if problem != self.problems.get(name):
                log.error("rollout: the former state stays: %s", problem)
        self.problems = problems
        self._states = states
        self._repository.follow_rollouts(states)

    def check(self, name: str) -> None:
        """Check that this worker follows the state of a model.

        Raises:
            ModelUnavailableError: it cannot read the state, or it has not loaded the stable version.
        """
        state = self._states.get(name)
        if problem := self.problems.get(name):
            raise ModelUnavailableError(problem)
        if not state or state.stable in self._repository.versions(name):
            return
        for entry in self._repository.index():
            if (entry.name, entry.version) == (name, state.stable):
                raise ModelUnavailableError(f"version {entry.version} is not loaded: {entry.reason}")

    # Changing

    def promote(self, name: str, version: str | None) -> None:
        """Let the candidate respond from now on, or another loaded version.

        Raises:
            ModelNotFoundError, ModelUnavailableError: the version is not loaded, or there is no candidate.
            RolloutError: the state cannot be written.
        """
        version = self._candidate(name) if version is None else version
        self._repository.get(name, version)
        self._change(name, lambda state: state.promote(version, self._repository.versions(name)))
        log.info("promoted model %s version %s", name, version)

    def drop(self, name: str, version: str | None) -> None:
        """Make a version no candidate any more.

        Raises:
            InputError: it is the stable version.
            ModelNotFoundError, ModelUnavailableError: the version is not loaded, or there is no candidate.
            RolloutError: the state cannot be written.
        """
        version = self._candidate(name) if version is None else version
        refusal = InputError(f"version {quoted(version)}: responds to the requests; promote another version instead")
        if self._repository.get(name, version) is self._repository.get(name):
            raise refusal

        def drop(state: RolloutState) -> None:
            # Another worker may have promoted it, and this one may not have followed yet.
            if state.stable == version:
                raise refusal
            state.dropped = sorted({*state.dropped, version}, key=int)
            state.weights.pop(version, None)

        self._change(name, drop)
        log.info("dropped model %s version %s from the rollout", name, version)

    def set_weight(self, name: str, weight: float) -> None:
        """Set the share of the requests to which the candidate responds.

        Raises:
            ModelNotFoundError, ModelUnavailableError: there is no candidate.
            RolloutError: the state cannot be written.
        """
        version = self._candidate(name)

        def set_weight(state: RolloutState) -> None:
            if choose(state, self._repository.versions(name)[::-1])[1] != version:
                raise ModelNotFoundError(f"version {version!r} of model {name!r} is no candidate any more")
            state.weights[version] = weight

        self._change(name, set_weight)
        log.info("model %s version %s responds to a share of %g of the requests", name, version, weight)

    def _candidate(self, name: str) -> str:
        stable = self._repository.get(name)
        if pair := self._repository.pair(name):
            return pair[1].version
        # Every newer version that is loaded and not dropped would be the candidate.
        if dropped := [each for each in self._repository.versions(name) if int(each) > int(stable.version)]:
            problem = f"dropped after version {stable.version}: {', '.join(dropped)}; to promote one, name this version"
        else:
            problem = f"no version after {stable.version} is loaded"
        raise ModelNotFoundError(f"model {name!r} has no candidate: {problem}")

    def _change(self, name: str, change: Callable[[RolloutState], None]) -> None:
        newest = self._repository.versions(name)[-1]

        def changed(state: RolloutState | None) -> RolloutState:
            state = state or self._states.get(name) or RolloutState(newest)
            change(state)
            return state

        self._files.change(name, changed)

    # Comparing

    def flush(self) -> tuple[list[str], RolloutError | None]:
        """Add what this worker has compared to the files.

        Returns:
            The models whose candidate ``--promote-after`` has promoted, and the first error if states cannot be
            written. The evidence for such a state is kept for the next call.
        """
        promoted: list[str] = []
        failure: RolloutError | None = None
        for (name, pair), evidence in self._findings.take().items():
            try:
                total = self._add(name, pair, evidence)
            except RolloutError as error:
                self._findings.give_back((name, pair), evidence)
                failure = failure or error
                continue
            if total:
                log.info(
                    "promoted model %s version %s: version %s has another label for %d of %d predictions",
                    *(name, pair.candidate, pair.stable, total.disagreed, total.compared),
                )
                promoted.append(name)
        return promoted, failure

    def _add(self, name: str, pair: Pair, evidence: Evidence) -> Counts | None:
        """Add evidence to the file of a model. Return its sums if that promotes the candidate (``--promote-after``).

        Raises:
            RolloutError: the state cannot be written.
        """
        total: Counts | None = None

        def add(state: RolloutState | None) -> RolloutState | None:
            nonlocal total
            versions = self._repository.versions(name)[::-1]
            # Another worker may have promoted or dropped the candidate meanwhile.
            if not state or not versions or choose(state, versions) != pair or self._is_behind(name, pair, state):
                return None
            state.add(pair, evidence)
            least, most = self._settings.promote_after, self._settings.max_disagreement
            if least and state.evidence.allows(least, most):
                total = state.evidence.total()
                state.promote(pair.candidate)
            return state

        self._files.change(name, add)
        return total

    def _is_behind(self, name: str, pair: Pair, state: RolloutState) -> bool:
        """Return whether others compare a newer candidate, which is on disk but which this service cannot load."""
        candidate = state.pair.candidate if state.pair else pair.candidate
        if candidate in state.dropped or int(candidate) <= int(pair.candidate):
            return False
        return any((entry.name, entry.version) == (name, candidate) for entry in self._repository.index())

    def sample(self, name: str) -> list[dict[str, Any]]:
        """Return this worker's sample of the disagreements about the candidate of a model, as plain data."""
        pair = self._repository.pair(name)
        if not pair:
            return []
        versions = Pair(pair[0].version, pair[1].version)
        return [msgspec.to_builtins(found) for found in self._findings.sample(name, versions)]

    def report(self, name: str, sample: list[dict[str, Any]]) -> Report:
        """Return the report about a model, with a sample that was collected from all workers.

        Raises:
            ModelNotFoundError, ModelUnavailableError: no version of it is loaded.
            RolloutError: the state cannot be read.
        """
        stable = self._repository.get(name).version
        pair = self._repository.pair(name)
        state = self._files.read(name) or RolloutState(stable)
        candidate = pair[1].version if pair else None
        evidence = state.evidence if state.pair == (stable, candidate) else Evidence()
        total = label_report(evidence.total())
        return Report(
            **{field: getattr(total, field) for field in total.__struct_fields__},
            model=name,
            stable=stable,
            candidate=candidate,
            weight=self._weight(pair[1]) if pair else 0.0,
            dropped=state.dropped,
            seconds=means(evidence.seconds, evidence.seconds_of_candidate, evidence.requests),
            skipped=evidence.skipped,
            failed=evidence.failed,
            labels={label: label_report(counts) for label, counts in sorted(evidence.labels.items())},
            sample=sorted(sample, key=lambda found: -float(found["time"])),
        )


def position(candidate: Model, key: str) -> float:
    """Return the position of a key between 0 and 1: always the same for the same key, and uniform over all keys.

    The candidate responds to the keys whose position is below its weight. So if the weight rises, it keeps the keys
    that it had. A key has another position for each candidate. So the first keys are not the same in every rollout.
    """
    text = f"{candidate.name}/{candidate.version}/{key}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) / 2**64


def _first(first: RolloutState, found: RolloutState | None) -> RolloutState:
    return found or first
