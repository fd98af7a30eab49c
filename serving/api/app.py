"""create_app(settings) -> Litestar."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import shutil
import signal
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from serving.api import certificate, open_inference, operations, predict
from serving.api import page as web
from serving.api import problems as errors
from serving.api.auth import Keys
from serving.api.middleware import observed
from serving.errors import BundleError, ModelNotFoundError, ModelUnavailableError
from serving.inference.batching import Batches
from serving.inference.service import Gate, Service
from serving.models.repository import Repository, load
from serving.settings import Settings
from serving.telemetry.metrics import COUNTED_AFTER, Metrics


def create_app(settings: Settings | None = None, unloaded: Path | None = None) -> Litestar:
    """The application, its models loaded and verified.

    Args:
        unloaded: folder that the workers of one service share to remember unloaded models.

    Raises:
        BundleError: there is no default model, or none of its versions is what its manifest certifies.
        SettingsError: no settings were given and those of the environment break a rule, or a key file does.
    """
    settings = settings or Settings.from_environment()
    service = create_service(settings, unloaded)
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    exposed = ["X-Request-ID", "Server-Timing", "Retry-After", "Inference-Header-Content-Length"]
    app = Litestar(
        route_handlers=[
            predict.predict,
            certificate.certificate,
            operations.metrics,
            *open_inference.HANDLERS,
            web.page,
        ],
        state=State({"service": service, "files": web.read_files()}),
        lifespan=[follow_repository, count_metrics, leave_gently],
        request_max_body_size=settings.max_body,
        cors_config=CORSConfig(allow_origins=origins, expose_headers=exposed) if origins else None,
        # Litestar would set up the whole process's logging; that is for whoever runs it.
        logging_config=None,
        exception_handlers=errors.HANDLERS,
        openapi_config=OpenAPIConfig(
            title="Digit service",
            version=importlib.metadata.version("mnist-service"),
            summary="Recognises handwritten digits",
            path="/schema",
            render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
        ),
    )
    app.asgi_handler = observed(app.asgi_handler, service)
    return app


def create_service(settings: Settings, unloaded: Path | None) -> Service:
    """The parts of the application, the default model loaded.

    Raises:
        BundleError, SettingsError: as :func:`create_app`.
    """
    metrics = Metrics()
    if unloaded is None:
        # A folder of its own, which goes when the application does, or the process.
        unloaded = Path(tempfile.mkdtemp(prefix="mnist-serve-"))
        weakref.finalize(metrics, shutil.rmtree, unloaded, ignore_errors=True)
    repository = Repository(
        settings.repository,
        settings.versions,
        unloaded,
        on_load=metrics.model_loaded,
        on_drop=metrics.model_dropped,
        on_refuse=metrics.model_refused,
    )
    if not settings.repository.is_dir():
        load(settings.repository, settings.model)  # says what is wrong
    repository.scan()
    try:
        repository.get(settings.model)
    except (ModelNotFoundError, ModelUnavailableError):
        if not (unloaded / settings.model).exists():
            load(settings.repository, settings.model)  # says what is wrong
            raise BundleError(f"{settings.repository} holds no usable model {settings.model!r}") from None
    return Service(settings, repository, metrics, Keys(settings), Gate(settings.max_concurrency), Batches(metrics))


@asynccontextmanager
async def follow_repository(app: Litestar) -> AsyncIterator[None]:
    """While the application runs, look for new versions."""
    service: Service = app.state.service

    async def follow() -> None:
        while service.settings.poll:
            await asyncio.sleep(service.settings.poll)
            await asyncio.to_thread(service.repository.scan)

    async with _meanwhile(follow()):
        yield


@asynccontextmanager
async def count_metrics(app: Litestar) -> AsyncIterator[None]:
    """While the application runs, count what was noted, so that another worker that is scraped finds it."""
    metrics = app.state.service.metrics

    async def count() -> None:
        while True:
            await asyncio.sleep(COUNTED_AFTER)
            metrics.count()

    async with _meanwhile(count()):
        yield
    metrics.count()


@asynccontextmanager
async def _meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def leave_gently(app: Litestar) -> AsyncIterator[None]:
    """On SIGTERM say not ready at once, go on answering for a while, and only then let the server stop."""
    service: Service = app.state.service
    stop = signal.getsignal(signal.SIGTERM)
    # A test's application has no server whose handler could be put off.
    if threading.current_thread() is not threading.main_thread() or not callable(stop):
        yield
        return
    loop = asyncio.get_running_loop()

    def drain(number: int, _: object) -> None:
        service.draining = True
        loop.call_soon_threadsafe(loop.call_later, service.settings.drain, stop, number, None)

    signal.signal(signal.SIGTERM, drain)
    yield
