"""GET /certificate: what is certified of the model that answers."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from litestar import get
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Operation
from litestar.types import ASGIApp

from serving.api.context import AnyRequest, context_of
from serving.api.predict import model_of, model_parameters
from serving.api.problems import documented
from serving.api.responses import Response
from serving.models.bundle import Manifest


@dataclass
class CertificateOperation(Operation):
    """The query, which the handler reads by itself."""

    def __post_init__(self) -> None:
        self.parameters = [*model_parameters()]


@get(
    "/certificate",
    operation_id="certificate",
    operation_class=CertificateOperation,
    summary="The certificate of the model that answers",
    tags=["prediction"],
    responses={
        200: ResponseSpec(Manifest, description="The model's manifest.json.", generate_examples=False),
        **documented(401, 404, 503),
    },
)
async def certificate(request: AnyRequest) -> ASGIApp:
    """What the model was trained on, how it did, and how each exported format compared with it.

    ``?model=`` and ``?version=`` choose another model, as for ``/predict``; who may predict may read it.
    """
    context = context_of(request)
    context.service.keys.check_prediction(context)
    model = model_of(context.service, request.query_params)
    # The manifest that was proved when the model was loaded, not what lies on the disk by now.
    return Response(msgspec.json.encode(model.bundle.manifest), [(b"content-type", b"application/json")])
