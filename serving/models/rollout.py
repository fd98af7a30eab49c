"""The rollout of a model: which version responds, which one is its candidate, and what comparing both has shown.

The stable version responds. The candidate is the newest loaded version after it that was not dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

# As the folder of a version is named. A person may have written the file that a state is read from.
Version = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,17}$(?!\n)")]
Share = Annotated[float, Meta(ge=0, le=1)]


class Pair(NamedTuple):
    """Two versions that are compared."""

    stable: Version
    candidate: Version


class Counts(msgspec.Struct):
    """What comparing the predictions of two versions has shown, for one label of the stable version."""

    compared: int = 0
    disagreed: int = 0
    """Predictions for which the candidate has another label."""
    accepted: int = 0
    """Predictions that the stable version accepts."""
    accepted_by_candidate: int = 0
    confidence: float = 0.0
    """Sum over the predictions of the stable version."""
    confidence_of_candidate: float = 0.0

    def add(self, other: Counts) -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Evidence(msgspec.Struct):
    """What comparing two versions has shown."""

    labels: dict[str, Counts] = {}
    """By label of the stable version."""
    requests: int = 0
    """Requests that both versions have processed."""
    seconds: float = 0.0
    """Sum of the times of inference in the stable version."""
    seconds_of_candidate: float = 0.0
    skipped: int = 0
    """Requests that were not repeated, because the service had no time for it."""
    failed: int = 0
    """Requests that failed in the version that repeated them."""

    def add(self, other: Evidence) -> None:
        for label, counts in other.labels.items():
            self.labels.setdefault(label, Counts()).add(counts)
        for name in ("requests", "seconds", "seconds_of_candidate", "skipped", "failed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def total(self) -> Counts:
        """Return the sums over all labels."""
        total = Counts()
        for counts in self.labels.values():
            total.add(counts)
        return total

    def allows(self, predictions: int, disagreement: float) -> bool:
        """Return whether the candidate may be promoted: it was compared often enough, and it differs little enough.

        It also must not reject more predictions than it may disagree about, and must not have failed.
        """
        total, most = self.total(), disagreement * self.total().compared
        is_enough = total.compared >= predictions
        return (
            is_enough and not self.failed and max(total.disagreed, total.accepted - total.accepted_by_candidate) <= most
        )


class RolloutState(msgspec.Struct):
    """What was decided about the versions of one model, and what comparing two of them has shown. One file holds it."""

    stable: Version
    """The version that responds."""
    dropped: list[Version] = []
    """Versions that are no candidates."""
    weights: dict[Version, Share] = {}
    """By version, the share of the requests to which it responds while it is the candidate, where it was set."""
    promoted: bool = False
    """Whether a version was promoted before. Otherwise the stable version is only where the rollout begins."""
    pair: Pair | None = None
    """The two versions that were compared to get ``evidence``."""
    evidence: Evidence = msgspec.field(default_factory=Evidence)

    def promote(self, version: str, loaded: Iterable[str] = ()) -> None:
        """Let ``version`` respond from now on.

        Going back drops the versions after it, up to the one that was promoted before. Otherwise ``--promote-after``
        could promote them again.

        Args:
            loaded: the loaded versions.
        """
        left = {each for each in loaded if int(version) < int(each) <= int(self.stable)}
        self.dropped = sorted({*self.dropped, *(left if self.promoted else ())} - {version}, key=int)
        self.promoted = True
        self.stable, self.pair, self.evidence = version, None, Evidence()
        self.weights.pop(version, None)

    def add(self, pair: Pair, evidence: Evidence) -> None:
        """Add the evidence about a pair. Evidence about another pair is dropped."""
        if self.pair != pair:
            self.pair, self.evidence = pair, Evidence()
        self.evidence.add(evidence)


def choose(state: RolloutState | None, loaded: Sequence[str]) -> tuple[str, str | None]:
    """Return the stable version and its candidate, or None if it has none.

    Without a state, the newest version responds and has no candidate. If the stable version is not loaded, because it
    was retired or damaged, the version before it responds; if there is none, the one after it.

    Args:
        loaded: the loaded versions, newest first; at least one.
    """
    if state is None:
        return loaded[0], None
    dropped = set(state.dropped)
    stable = state.stable
    if stable not in loaded:
        usable = [version for version in loaded if version not in dropped] or list(loaded)
        older = [version for version in usable if int(version) < int(stable)]
        stable = older[0] if older else usable[-1]
    newer = (version for version in loaded if int(version) > int(stable) and version not in dropped)
    return stable, next(newer, None)
