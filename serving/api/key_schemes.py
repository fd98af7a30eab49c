"""How the OpenAPI document describes API keys."""

from __future__ import annotations

from litestar.openapi.spec import Components, SecurityScheme

COMPONENTS = Components(
    security_schemes={
        "bearer": SecurityScheme(type="http", scheme="bearer", description="Authorization: Bearer KEY"),
        "apiKey": SecurityScheme(
            type="apiKey", name="X-API-Key", security_scheme_in="header", description="X-API-Key: KEY"
        ),
    }
)

REQUIRED: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]
"""The route needs an admin key, in one of the two headers."""
IF_CONFIGURED: list[dict[str, list[str]]] = [{}, *REQUIRED]
"""The route needs a key if the operator has configured keys."""
