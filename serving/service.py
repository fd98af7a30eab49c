"""What every handler needs: the settings, the models, the metrics, the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar import Request

from serving.keys import Keys
from serving.metrics import Metrics
from serving.repository import Repository
from serving.settings import Settings


@dataclass
class Service:
    """One application's parts."""

    settings: Settings
    repository: Repository
    metrics: Metrics
    keys: Keys


def service_of(request: Request[Any, Any, Any]) -> Service:
    """The parts of the application that answers ``request``."""
    service: Service = request.app.state.service
    return service
