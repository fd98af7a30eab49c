"""What the OpenAPI document says about a query and a body that the handler reads itself."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import OpenAPIMediaType, Operation, Parameter, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType

TEXT = Schema(type=OpenAPIType.STRING)

VERSION_PARAMETER = Parameter(
    "version",
    "query",
    schema=TEXT,
    description="Version of the model. The default is the newest, with --rollout the stable one.",
)


def described(*parameters: Parameter, body: dict[str, OpenAPIMediaType] | None = None) -> type[Operation]:
    """Return the ``operation_class`` of a handler whose parameters and body Litestar cannot derive.

    Args:
        parameters: they replace those of the same name that Litestar derives from the path.
        body: the description of the body by its media type.
    """

    @dataclass
    class Described(Operation):
        def __post_init__(self) -> None:
            derived = {each.name: each for each in self.parameters or [] if isinstance(each, Parameter)}
            self.parameters = [*(derived | {each.name: each for each in parameters}).values()] or None
            self.request_body = RequestBody(required=True, content=body) if body else None

    return Described
