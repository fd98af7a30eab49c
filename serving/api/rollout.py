"""The rollout of a model: report on its candidate, promote it, drop it, and set its share of the requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.types import ASGIApp

from serving.api.context import AnyRequest, RequestContext, context_of, query_of, read_body
from serving.api.described import TEXT, described
from serving.api.json_images import JSON_ERRORS
from serving.api.key_schemes import REQUIRED
from serving.api.problems import documented
from serving.api.responses import JSON, Response
from serving.errors import InputError
from serving.service.background import on_own_thread
from serving.service.rollout import Rollouts
from serving.service.rollout_report import Report

# The query parameters of promote and drop.
PARAMETERS = ("version",)
# A body holds a single number.
MAX_BODY = 1000

RESPONSES = {
    200: ResponseSpec(Report, description="The rollout of the model.", generate_examples=False),
    **documented(400, 401, 403, 404, 503),
}
# A POST route that changes a rollout.
decision = partial(post, status_code=200, security=REQUIRED, tags=["rollout"], responses=RESPONSES)


class Weight(msgspec.Struct):
    """The share of the requests to which the candidate responds."""

    weight: Annotated[float, msgspec.Meta(ge=0, le=1)]


WITH_VERSION = described(
    Parameter("version", "query", schema=TEXT, description="A loaded version. Without it, the candidate is used.")
)
NUMBER = Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=1)
WITH_WEIGHT = described(
    body={
        "application/json": OpenAPIMediaType(
            Schema(type=OpenAPIType.OBJECT, properties={"weight": NUMBER}, required=["weight"])
        )
    }
)


@get(
    "/models/{name:str}/shadow",
    operation_id="shadow",
    security=REQUIRED,
    summary="Compare the candidate of a model with the version that responds",
    tags=["rollout"],
    responses=RESPONSES,
)
async def shadow(request: AnyRequest) -> ASGIApp:
    """Respond with counts since the candidate was loaded, and a sample of disagreements. It needs an admin key."""
    return await _report(*_checked(request))


@decision(
    "/models/{name:str}/promote",
    operation_id="promote",
    operation_class=WITH_VERSION,
    summary="Let the candidate of a model respond from now on, or another version",
)
async def promote(request: AnyRequest) -> ASGIApp:
    """Respond when every worker uses the version. The request needs an admin key."""
    return await _decide_on_version(request, Rollouts.promote)


@decision(
    "/models/{name:str}/drop",
    operation_id="drop",
    operation_class=WITH_VERSION,
    summary="Stop comparing the candidate of a model",
)
async def drop(request: AnyRequest) -> ASGIApp:
    """Respond when no worker repeats requests with the version any more. The request needs an admin key."""
    return await _decide_on_version(request, Rollouts.drop)


@decision(
    "/models/{name:str}/canary",
    operation_id="canary",
    operation_class=WITH_WEIGHT,
    summary="Set the share of the requests to which the candidate of a model responds",
    responses={**RESPONSES, **documented(413)},
)
async def canary(request: AnyRequest) -> ASGIApp:
    """Respond when every worker divides the requests so. The request needs an admin key."""
    context, name = _checked(request)
    body = await read_body(request, MAX_BODY)
    try:
        weight = msgspec.json.decode(body, type=Weight).weight
    except JSON_ERRORS as error:
        raise InputError(f'the body must be such as {{"weight": 0.05}}, a number from 0 to 1: {error}') from error
    return await _decide(context, name, lambda rollouts: rollouts.set_weight(name, weight))


def _checked(request: AnyRequest) -> tuple[RequestContext, str]:
    """Return the context of an allowed request, and the name of its model."""
    context = context_of(request)
    context.service.keys.check_admin(context)
    context.service.checked_rollouts()
    return context, request.path_params["name"]


async def _decide_on_version(request: AnyRequest, decide: Callable[[Rollouts, str, str | None], None]) -> ASGIApp:
    context, name = _checked(request)
    version = query_of(request, PARAMETERS).get("version")
    return await _decide(context, name, lambda rollouts: decide(rollouts, name, version))


async def _decide(context: RequestContext, name: str, decide: Callable[[Rollouts], None]) -> ASGIApp:
    await on_own_thread(lambda: context.service.decide_rollout(decide, name))
    return await _report(context, name)


async def _report(context: RequestContext, name: str) -> ASGIApp:
    report = await on_own_thread(lambda: context.service.report_rollout(name))
    return Response(msgspec.json.encode(report), [JSON])


HANDLERS: list[Any] = [shadow, promote, drop, canary]
