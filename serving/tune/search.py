"""Find the settings with the highest throughput within a p99, from measurements of real services.

1. For each number of workers, double the connections while the p99 stays within the bound. Then look between the last
   number that did and the first that did not. The number of workers with the highest throughput wins. It may have as
   many predictions in flight as the p99 allows, because more of them mean fewer rejected requests.
2. With these workers, double the images of a request while its p99 stays within the bound.
3. Start the service with the settings that were found, send twice the load, and look whether the p99 of the accepted
   requests holds. If not, allow fewer predictions in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from serving.errors import TuneError

# Most connections for each worker, and in all. With more, the kernel and the load take a growing part of the time.
MAX_PER_WORKER, MAX_CONNECTIONS = 256, 1024
# A throughput counts as equal if it differs by less than this share.
EQUAL = 0.02
# Largest number of images in a request that is tried.
MAX_IMAGES = 1024
# How many limits step 3 tries. Each is three quarters of the one before.
CHECKS = 4
# The share of the time after which steps 1 and 2 begin no measurement.
FIRST_STEP, SECOND_STEP = 0.65, 0.85


@dataclass(frozen=True)
class Trial:
    """What is measured."""

    workers: int
    connections: int
    images: int = 1
    limit: int | None = None
    """``--max-concurrency``; None means that it is too high to matter."""


@dataclass(frozen=True)
class Result:
    """What was found."""

    trial: Trial
    rate: float
    """Accepted requests per second."""
    p50: float
    """In seconds, as :attr:`p99`."""
    p99: float
    rejected: float = 0.0
    """The share of the requests with the status 429."""


@dataclass(frozen=True)
class Found:
    """The settings to use."""

    workers: int
    limit: int
    """``--max-concurrency``: the most predictions in flight in a worker with which the p99 holds."""
    images: int | None
    """``--max-batch``; None if it was not measured."""
    steady: Result
    """The measurement with the highest throughput within the bound."""
    overload: Result
    """The same settings with twice the connections."""
    is_whole: bool
    """Whether there was time for every measurement of steps 1 and 2."""


class Search:
    """Searches with ``measure``, which measures one trial.

    Args:
        bound: the highest p99, in seconds.
        spent: returns the share of the time that is over.
    """

    def __init__(
        self, measure: Callable[[Trial], Result], bound: float, spent: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._measure = measure
        self._bound = bound
        self._spent = spent
        self._lowest: Result | None = None
        self._is_whole = True

    def run(self, workers: Iterable[int], *, with_batches: bool = True) -> Found:
        """Return the settings to use.

        Args:
            workers: the numbers of workers to try.
            with_batches: also look for the largest request.

        Raises:
            TuneError: no settings stay within the bound.
        """
        within = [result for count in workers for result in self._within(count)]
        if not within:
            raise self._unreachable()
        steady = _best(within)
        count = steady.trial.workers
        images = self._largest_request(count) if with_batches else None
        limit = max(result.trial.connections for result in within if result.trial.workers == count) // count
        for _ in range(CHECKS):
            overload = self._trial(Trial(count, 2 * count * limit, limit=limit))
            if overload.p99 <= self._bound:
                return Found(count, limit, images, steady, overload, self._is_whole)
            limit = max(1, limit * 3 // 4)
        raise TuneError(
            f"--p99 {shown(self._bound)}: some settings stay within it, but none did under twice the load. "
            "Measure longer with --seconds, or measure again when no other program uses the cores"
        )

    def _within(self, workers: int) -> list[Result]:
        """Return the measurements with this number of workers that are within the bound."""
        within: list[Result] = []
        good, bad, each = 0, 0, 1
        most = min(MAX_PER_WORKER, max(1, MAX_CONNECTIONS // workers))
        # The first measurement is made in any case.
        while each <= most and (self._lowest is None or self._has_time(FIRST_STEP)):
            result = self._trial(Trial(workers, each * workers))
            if result.p99 <= self._bound:
                within.append(result)
                good = each
            else:
                bad = each
            if bad and bad - good <= max(1, good // 4):
                break
            each = (good + bad) // 2 if bad else 2 * each
        return within

    def _largest_request(self, workers: int) -> int | None:
        """Return the images of the largest request that stays within the bound, or None if there is no time."""
        images = None
        while (images or 1) < MAX_IMAGES and self._has_time(SECOND_STEP):
            if self._trial(Trial(workers, 1, 2 * (images or 1))).p99 > self._bound:
                return images or 1
            images = 2 * (images or 1)
        return images

    def _has_time(self, share: float) -> bool:
        """Return whether less than this share of the time is over. If not, note that the search is not whole."""
        has_time = self._spent() < share
        self._is_whole = self._is_whole and has_time
        return has_time

    def _trial(self, trial: Trial) -> Result:
        """Measure, and measure again if the p99 is beyond the bound: another program may have disturbed it."""
        result = self._measure(trial)
        if result.p99 > self._bound:
            result = min(result, self._measure(trial), key=lambda result: result.p99)
        if self._lowest is None or result.p99 < self._lowest.p99:
            self._lowest = result
        return result

    def _unreachable(self) -> TuneError:
        assert self._lowest is not None  # noqa: S101 (there is a first measurement)
        trial = self._lowest.trial
        return TuneError(
            f"--p99 {shown(self._bound)}: no settings stay within it on this machine. The lowest p99 was "
            f"{shown(self._lowest.p99)}, with --workers {trial.workers} and {trial.connections} in flight; allow a "
            "longer --p99"
        )


def _best(results: list[Result]) -> Result:
    """Return the fastest result. Of those that are as fast, return the one with the lowest p99."""
    fastest = max(result.rate for result in results)
    return min((result for result in results if result.rate >= (1 - EQUAL) * fastest), key=lambda result: result.p99)


def shown(seconds: float) -> str:
    """Return a time as a user writes it for --p99."""
    return f"{seconds:.3g}s" if seconds >= 1 else f"{seconds * 1000:.3g}ms"
