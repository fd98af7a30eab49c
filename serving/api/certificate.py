"""GET /certificate: the manifest of a loaded model."""

from __future__ import annotations

import msgspec
from litestar import get
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp

from serving.api.card import card_path
from serving.api.context import AnyRequest, context_of, query_of
from serving.api.described import described
from serving.api.key_schemes import IF_CONFIGURED
from serving.api.predict import MODEL_DESCRIPTIONS, MODEL_PARAMETERS
from serving.api.problems import documented
from serving.api.responses import CHECK_AGAIN, JSON, Response
from serving.models.bundle import Manifest


@get(
    "/certificate",
    operation_id="certificate",
    operation_class=described(*MODEL_DESCRIPTIONS),
    security=IF_CONFIGURED,
    summary="Get the manifest of a model",
    tags=["prediction"],
    responses={
        200: ResponseSpec(Manifest, description="The model's manifest.json.", generate_examples=False),
        **documented(400, 401, 404, 503),
    },
)
async def certificate(request: AnyRequest) -> ASGIApp:
    """Respond with what the model was trained on, its results, and how each exported format compared with the network.

    The query chooses the model as for ``/predict``. The header ``Link`` names the model card. If predictions need a
    key, this route needs the same key.
    """
    context = context_of(request)
    service = context.service
    service.keys.check_prediction(context)
    query = query_of(request, MODEL_PARAMETERS)
    model = service.repository.get(query.get("model", service.settings.model), query.get("version"))
    # The file on disk may have changed since the model was loaded and verified.
    link = b"link", f'<{card_path(model)}>; rel="describedby"'.encode()
    return Response(msgspec.json.encode(model.bundle.manifest), [JSON, link, CHECK_AGAIN])
