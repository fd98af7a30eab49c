"""The other workers of the service, as the application sees them."""

from __future__ import annotations

from typing import Any, Literal

from serving.telemetry.samples import Snapshot

ModelChange = Literal["load", "unload", "rollout"]
"""``rollout``: follow the rollout state of the model, which has changed."""


class Peers:
    """The other workers of the service. This class is for a single worker, which has none."""

    async def snapshots(self) -> list[Snapshot]:
        """Return the metrics of all workers, also of this one and of those that have ended; [] if it is the only one.

        A counter never falls, even if each scrape reaches another worker.
        """
        return []

    def change(self, change: ModelChange, name: str) -> None:
        """Make a change to a model in every worker, and return when that is done everywhere. This call blocks.

        Raises:
            ModelUnavailableError: a worker has failed to do it, or has not confirmed it in time.
        """

    def disagreements(self, name: str) -> list[dict[str, Any]]:
        """Return the samples of disagreements of the other workers, and let them write what they have compared.

        This call blocks.
        """
        return []
