"""Create the Litestar application, with its models loaded and verified."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import OpenAPI, OpenAPIHeader, OpenAPIResponse

from serving.api import (
    card,
    certificate,
    feedback,
    key_schemes,
    open_inference,
    operations,
    page,
    predict,
    problems,
    rollout,
)
from serving.api.cors import cors_config
from serving.api.described import TEXT
from serving.api.middleware import observed
from serving.errors import BundleError, ModelNotFoundError, ModelUnavailableError, SettingsError
from serving.feedback.store import Store
from serving.inference.admission import Admission, Held
from serving.inference.decoder import Decoder
from serving.inference.findings import Findings
from serving.inference.pipeline import Pipeline
from serving.inference.shadow import Shadow
from serving.models.repository import Repository, load
from serving.models.trust import Trust
from serving.service.background import STOP_SECONDS, attempt, on_own_thread, repeated
from serving.service.keys import LOOK_INTERVAL, Keys
from serving.service.rollout import FLUSH_INTERVAL, Rollouts
from serving.service.service import Service
from serving.settings import Settings
from serving.telemetry.logs import STOPPING
from serving.telemetry.recorder import COUNT_INTERVAL, Recorder
from serving.telemetry.traces import EXPORT_INTERVAL, tracer_of

log = logging.getLogger("serving")


class SchemaDocument(JsonRenderPlugin):
    """Serves the OpenAPI document at its own paths only."""

    def receive_router(self, router: Router) -> None:
        # Litestar would respond to all other paths below /schema as well, with a page in HTML.
        router.routes[:] = [route for route in router.routes if not route.path_parameters]


def create_app(settings: Settings | None = None, unloaded: Collection[str] = ()) -> Litestar:
    """Return the application, with its models loaded and verified.

    Args:
        settings: read from the environment if not given.
        unloaded: the names of the models that are unloaded at the start.

    Raises:
        BundleError: there is no default model, or none of its versions matches its manifest.
        SettingsError: a setting of the environment breaks its rule, a key file cannot be used, or traces cannot be
            sent.
    """
    settings = settings or Settings.from_environment()
    service = create_service(settings, unloaded)
    app = Litestar(
        route_handlers=[
            predict.predict,
            certificate.certificate,
            card.card,
            feedback.give_feedback,
            feedback.feedback,
            operations.metrics,
            *open_inference.HANDLERS,
            *rollout.HANDLERS,
            page.handler(page.read_files(with_feedback=service.feedback is not None)),
        ],
        state=State({"service": service}),
        lifespan=[
            *(follow_repository, follow_keys, follow_rollouts, count_notes, send_traces, end_decoder, drain_on_sigterm)
        ],
        request_max_body_size=settings.max_body,
        cors_config=cors_config(settings.cors_origins),
        # Litestar would configure the logging of the whole process. Only the command may do that.
        logging_config=None,
        exception_handlers=problems.HANDLERS,
        openapi_config=OpenAPIConfig(
            title="Digit service",
            version=importlib.metadata.version("mnist-service"),
            summary="Recognises handwritten digits, or the symbols of your own model",
            description="Send a picture to /predict. Errors are problem documents (RFC 9457); those below /v2 have the "
            "form of the Open Inference Protocol. A key is needed only where the operator has configured keys.",
            components=key_schemes.COMPONENTS,
            path="/schema",
            render_plugins=[SchemaDocument(path=["/", "/openapi.json"])],
        ),
    )
    app.asgi_handler = observed(app.asgi_handler, service)
    # Litestar would make the document for the first request that asks for it, which would block all others meanwhile.
    _put_in_order(app.openapi_schema)
    _add_headers(app.openapi_schema)
    app.openapi_schema.to_schema()
    return app


def _put_in_order(document: OpenAPI) -> None:
    """Give the paths of a route, and the parameters in a path, a fixed order.

    Litestar takes both from sets. Without this, the document differs from process to process.
    """
    routes: dict[str | None, list[str]] = {}
    paths = document.paths or {}
    for path, item in paths.items():
        operations = [operation for operation in (item.get, item.post) if operation]
        routes.setdefault(operations[0].summary, []).append(path)
        for operation in operations:
            parameters: list[Any] = operation.parameters or []
            parameters.sort(key=lambda each: path.index(f"{{{each.name}}}") if each.param_in == "path" else len(path))
    document.paths = {path: paths[path] for route in routes.values() for path in sorted(route, key=len)}


def _add_headers(document: OpenAPI) -> None:
    """Describe the headers of error responses, which Litestar takes only from its own kind of responses."""
    for item in (document.paths or {}).values():
        for operation in (item.get, item.post):
            for status, response in (operation.responses if operation and operation.responses else {}).items():
                headers = problems.HEADERS.get(int(status), {})
                if isinstance(response, OpenAPIResponse) and headers:
                    response.headers = {
                        name: OpenAPIHeader(schema=TEXT, description=problems.HEADER_MEANINGS[name]) for name in headers
                    }


def create_service(settings: Settings, unloaded: Collection[str]) -> Service:
    """Return the parts of the application, with the models loaded.

    Raises:
        BundleError, SettingsError: as :func:`create_app`.
    """
    recorder = Recorder()
    trust = Trust.of(settings.trust)
    repository = Repository(settings.repository, settings.versions, unloaded, trust)
    if not os.path.isdir(settings.repository):  # noqa: PTH112 (Path.is_dir raises an error without permission)
        load(settings.repository, settings.model, trust=trust)  # Raises the error that says what is wrong.
    admission = Admission(settings.max_concurrency)
    # A small body may be a large request too, for instance if it is compressed.
    pipeline = Pipeline(recorder, admission.max_large)
    service = Service(
        settings,
        repository,
        recorder,
        Keys(settings),
        admission,
        Held(settings.max_held),
        pipeline,
        Decoder(settings, pipeline.threads),
        feedback=Store(settings) if settings.feedback else None,
        tracer=tracer_of(settings, recorder),
    )
    if settings.rollout:
        findings = Findings(recorder)
        shadow = Shadow(findings, service.decoder, settings.work_timeout)
        service.rollouts = Rollouts(settings, repository, findings, shadow)
    service.scan()
    if service.rollouts and service.rollouts.problems:
        raise SettingsError(f"--rollout: {next(iter(service.rollouts.problems.values()))}")
    try:
        repository.get(settings.model)
    except (ModelNotFoundError, ModelUnavailableError):
        if settings.model not in unloaded:
            load(settings.repository, settings.model, trust=trust)  # Raises the error that says what is wrong.
            raise BundleError(
                f"{settings.repository} holds no usable model {settings.model!r}; publish it with mnist-export, or "
                "name another one with --model"
            ) from None
    return service


@asynccontextmanager
async def follow_repository(app: Litestar) -> AsyncIterator[None]:
    """Scan the repository for changes while the application runs."""
    service: Service = app.state.service
    if not service.settings.poll:
        yield
        return
    async with repeated("scan", service.settings.poll, partial(on_own_thread, service.scan), service.recorder):
        yield


@asynccontextmanager
async def follow_keys(app: Litestar) -> AsyncIterator[None]:
    """Look for changed key files while the application runs."""
    service: Service = app.state.service
    if not service.keys.has_files:
        yield
        return
    async with repeated("keys", LOOK_INTERVAL, partial(on_own_thread, service.keys.look), service.recorder):
        yield


@asynccontextmanager
async def follow_rollouts(app: Litestar) -> AsyncIterator[None]:
    """Write what was compared to the states of the rollouts while the application runs."""
    service: Service = app.state.service
    if (rollouts := service.rollouts) is None:
        yield
        return

    async def flush_last() -> None:
        # The other workers stop too, so they could not confirm a promotion.
        _, failure = await asyncio.wait_for(on_own_thread(rollouts.flush), STOP_SECONDS)
        if failure:
            raise failure

    flush = partial(on_own_thread, service.flush_rollouts)
    async with repeated("rollout", FLUSH_INTERVAL, flush, service.recorder):
        yield
    rollouts.shadow.stop()
    await attempt("rollout", flush_last, service.recorder)


@asynccontextmanager
async def count_notes(app: Litestar) -> AsyncIterator[None]:
    """Count the recorder's notes while the application runs, so that a scrape of another worker includes them."""
    recorder: Recorder = app.state.service.recorder

    async def count() -> None:
        recorder.count()

    async with repeated("count", COUNT_INTERVAL, count, recorder):
        yield
    await attempt("count", count, recorder)


@asynccontextmanager
async def send_traces(app: Litestar) -> AsyncIterator[None]:
    """Send the spans of traced requests to the collector while the application runs, and the last ones at its end."""
    service: Service = app.state.service
    tracer = service.tracer
    if tracer is None:
        yield
        return
    send = partial(on_own_thread, tracer.export)
    async with repeated("traces", EXPORT_INTERVAL, send, service.recorder):
        yield
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(attempt("traces", send, service.recorder), STOP_SECONDS)
    tracer.stop()


@asynccontextmanager
async def end_decoder(app: Litestar) -> AsyncIterator[None]:
    """End the process that decodes large pictures when the application stops."""
    yield
    await app.state.service.decoder.close()


@asynccontextmanager
async def drain_on_sigterm(app: Litestar) -> AsyncIterator[None]:
    """On SIGTERM, report not ready at once, respond for some more seconds, and then let the server stop."""
    service: Service = app.state.service
    stop = signal.getsignal(signal.SIGTERM)
    # In a test there is no server, and so no signal handler to delay.
    if threading.current_thread() is not threading.main_thread() or not callable(stop):
        yield
        return
    loop = asyncio.get_running_loop()

    def drain(number: int, _: object) -> None:
        if not service.draining:  # The supervisor of a worker has logged it.
            loop.call_soon_threadsafe(log.info, STOPPING, service.settings.drain)
        service.draining = True
        loop.call_soon_threadsafe(loop.call_later, service.settings.drain, stop, number, None)

    signal.signal(signal.SIGTERM, drain)
    yield
