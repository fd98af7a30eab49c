"""GET /models/{name}/card: the model card as a page."""

from __future__ import annotations

import html
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

from litestar import MediaType, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Parameter
from litestar.types import ASGIApp

from serving.api.context import AnyRequest, context_of, query_of
from serving.api.described import TEXT, VERSION_PARAMETER, described
from serving.api.key_schemes import IF_CONFIGURED
from serving.api.problems import documented
from serving.api.responses import CHECK_AGAIN, Response
from serving.models import card as cards
from serving.models.document import on_one_line, to_html
from serving.models.model import Model

CARD_ROUTE = "/models/{name}/card"
PARAMETERS = ("version",)

# The paths are relative, because a proxy may serve the whole service below a path of its own.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Model card of {title}</title>
<link rel="icon" href="../../icon.png">
<link rel="stylesheet" href="../../style.css">
<link rel="stylesheet" href="../../docs.css">
</head>
<body>
<header>
  <h1>Model card of {title}</h1>
  <nav aria-label="Service"><a href="../../">Draw a digit</a> <a href="../../{certificate}">Manifest</a></nav>
</header>
<main class="docs">
{content}
</main>
</body>
</html>
"""

# A card never changes, so each is made once, when it is first asked for.
_pages: WeakKeyDictionary[Model, bytes] = WeakKeyDictionary()


def card_path(model: Model) -> str:
    """Return the path and the query of the card of a model."""
    return f"/models/{model.name}/card?{urlencode({'version': model.version})}"


@get(
    CARD_ROUTE.replace("name", "name:str"),
    operation_id="card",
    operation_class=described(
        Parameter("name", "path", schema=TEXT, required=True, description="Name of the model."), VERSION_PARAMETER
    ),
    security=IF_CONFIGURED,
    summary="Read the card of a model",
    tags=["prediction"],
    media_type="text/html",
    responses={
        200: ResponseSpec(
            str, description="The model card as HTML.", media_type=MediaType.HTML, generate_examples=False
        ),
        **documented(400, 401, 404, 503),
    },
)
async def card(request: AnyRequest) -> ASGIApp:
    """Respond with what the model is good for: what it reads, its results on each set, and its limits.

    If predictions need a key, this route needs the same key.
    """
    context = context_of(request)
    context.service.keys.check_prediction(context)
    model = context.service.repository.get(request.path_params["name"], query_of(request, PARAMETERS).get("version"))
    if model not in _pages:
        _pages[model] = page_of(model).encode()
    return Response(_pages[model], [(b"content-type", b"text/html; charset=utf-8"), CHECK_AGAIN])


def page_of(model: Model) -> str:
    """Return the card of a model as a whole page."""
    manifest = model.bundle.manifest
    query = urlencode({"model": model.name, "version": model.version})
    return PAGE.format(
        title=html.escape(on_one_line(cards.title(manifest))),
        certificate=html.escape(f"certificate?{query}"),
        content=to_html(cards.blocks(manifest)),
    )
