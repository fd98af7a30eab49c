"""create_app(settings) -> Litestar."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from litestar import Litestar
from litestar.datastructures import State
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.static_files import create_static_files_router

from serving import repository
from serving.api import errors, operations, predict
from serving.settings import Settings

WEB = Path(__file__).parent / "web"


def create_app(settings: Settings | None = None) -> Litestar:
    """The application, its model loaded and verified.

    Raises:
        BundleError: there is no model, or it is not what its manifest certifies.
        SettingsError: no settings were given and those of the environment break a rule.
    """
    settings = settings or Settings.from_environment()
    model = repository.load(settings.repository, settings.model)
    return Litestar(
        route_handlers=[
            predict.predict,
            operations.live,
            operations.ready,
            create_static_files_router(path="/", directories=[WEB], html_mode=True, include_in_schema=False),
        ],
        state=State({"settings": settings, "model": model}),
        request_max_body_size=settings.max_body,
        # Litestar would set up the whole process's logging; that is for whoever runs it.
        logging_config=None,
        exception_handlers={
            RequestEntityTooLarge: errors.on_body_too_large,
            NotFoundException: errors.on_not_found,
            MethodNotAllowedException: errors.on_method_not_allowed,
            HTTPException: errors.on_http_exception,
            Exception: errors.on_exception,
        },
        openapi_config=OpenAPIConfig(
            title="Digit service",
            version=importlib.metadata.version("mnist-service"),
            summary="Recognises handwritten digits",
            path="/schema",
            render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
        ),
    )
