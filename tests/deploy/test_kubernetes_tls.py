"""HTTPS on Kubernetes: the overlays for an Ingress and for the Gateway API."""

from __future__ import annotations

import re

import pytest

from tests.deploy.test_kubernetes import of_kind, render
from tests.support import application

__all__ = ["render"]

CLOSED = ["/metrics", "/v2/repository/models/mnist/load", "/v2/repository/models/mnist/unload"]
CHANGES = ("canary", "drop", "promote", "shadow")
CLOSED += [f"/models/{name}/{change}" for name in ("mnist", "x.y") for change in CHANGES]
ISSUER = "cert-manager.io/cluster-issuer"


def strict(required, **properties):
    """Return the schema of an object with these properties and no others."""
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def several(items, most):
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


# What version v1 of the Gateway API allows, of what is used here. The API server rejects other fields, or drops them.
TEXT, PORT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1, "maximum": 65535}
TLS = strict([], mode={"enum": ["Terminate"]}, certificateRefs=several(strict(["name"], name=TEXT), 64))
LISTENER = strict(
    ["name", "port", "protocol"], name=TEXT, port=PORT, protocol={"enum": ["HTTP", "HTTPS"]}, hostname=TEXT, tls=TLS
)
PATH = strict(["type", "value"], type={"enum": ["Exact", "PathPrefix"]}, value={"type": "string", "pattern": "^/"})
HEADER = strict(["name", "value"], name=TEXT, value=TEXT)
FILTER = strict(
    ["type"],
    type={"enum": ["ResponseHeaderModifier", "RequestRedirect"]},
    responseHeaderModifier=strict([], set=several(HEADER, 16)),
    requestRedirect=strict([], scheme={"enum": ["http", "https"]}, statusCode={"enum": [301, 302]}),
)
RULE = strict(
    [],
    matches=several(strict([], path=PATH), 64),
    filters=several(FILTER, 16),
    backendRefs=several(strict(["name", "port"], name=TEXT, port=PORT), 16),
)
SCHEMAS = {
    "Gateway": strict(["gatewayClassName", "listeners"], gatewayClassName=TEXT, listeners=several(LISTENER, 64)),
    "HTTPRoute": strict(
        ["parentRefs", "rules"],
        parentRefs=several(strict(["name"], name=TEXT, sectionName=TEXT), 32),
        hostnames=several(TEXT, 16),
        rules=several(RULE, 16),
    ),
}


def covers(kind, pattern, path):
    return path == pattern if kind == "Exact" else (path + "/").startswith(pattern.rstrip("/") + "/")


def backend(matches, path):
    """Return the backend of the match that counts: the exact one, or else the longest prefix."""
    found = [(kind == "Exact", len(pattern), name) for kind, pattern, name in matches if covers(kind, pattern, path)]
    return max(found)[2]


def ingress_matches(render):
    [ingress] = of_kind(render("ingress"), "Ingress")
    [rule] = ingress["spec"]["rules"]
    return [(each["pathType"], each["path"], each["backend"]["service"]["name"]) for each in rule["http"]["paths"]]


def gateway_matches(render):
    route = of_kind(render("gateway"), "HTTPRoute")[0]
    return [
        (match["path"]["type"], match["path"]["value"], rule.get("backendRefs", [{"name": "closed"}])[0]["name"])
        for rule in route["spec"]["rules"]
        for match in rule["matches"]
    ]


@pytest.mark.parametrize("matches", [ingress_matches, gateway_matches])
def test_every_route_passes_except_those_of_a_single_pod(render, matches):
    with application() as client:
        paths = {re.sub(r"{\w+}", "mnist", path) for path in client.get("/schema/openapi.json").json()["paths"]}
    assert {"/models/mnist/promote", "/models/mnist/card"} <= paths
    paths |= {"/", "/page.js", "/docs", "/schema", *CLOSED}
    found = matches(render)
    reached = {path: backend(found, path) for path in paths}
    # The load balancer of Compose closes the same routes.
    administration = ("/metrics", "/v2/repository/models/", "/models/")
    expected = {path for path in paths if path.startswith(administration) and path != "/models/mnist/card"}
    assert {path for path, name in reached.items() if name == "closed"} == expected
    assert set(reached.values()) == {"closed", "mnist-service"}


def test_names_of_services_secrets_and_hosts_match(render):
    [service] = of_kind(render("production"), "Service")
    [closed] = of_kind(render("ingress"), "Service")
    assert "selector" not in closed["spec"]
    [ingress] = of_kind(render("ingress"), "Ingress")
    [tls] = ingress["spec"]["tls"]
    assert tls["hosts"] == [rule["host"] for rule in ingress["spec"]["rules"]]
    assert {name for *_, name in ingress_matches(render)} == {service["metadata"]["name"], closed["metadata"]["name"]}
    [gateway] = of_kind(render("gateway"), "Gateway")
    listeners = {listener["name"]: listener for listener in gateway["spec"]["listeners"]}
    route, redirect = of_kind(render("gateway"), "HTTPRoute")
    for each, section in (route, "https"), (redirect, "http"):
        assert each["spec"]["parentRefs"] == [{"name": gateway["metadata"]["name"], "sectionName": section}]
        assert each["spec"]["hostnames"] == tls["hosts"]
    assert [listeners["https"]["hostname"]] == tls["hosts"]
    assert listeners["https"]["tls"]["certificateRefs"] == [{"name": tls["secretName"]}]
    port = service["spec"]["ports"][0]["port"]
    assert route["spec"]["rules"][-1]["backendRefs"] == [{"name": service["metadata"]["name"], "port": port}]
    for resource in ingress, gateway:
        assert resource["metadata"]["annotations"][ISSUER]


def test_resources_of_the_gateway_have_only_known_fields(render):
    # The import takes two seconds. Every process of the tests would pay for it at the top of this file.
    import jsonschema

    resources = render("gateway")
    assert [resource["kind"] for resource in resources] == ["Gateway", "HTTPRoute", "HTTPRoute"]
    for resource in resources:
        assert resource["apiVersion"] == "gateway.networking.k8s.io/v1"
        jsonschema.validate(resource["spec"], SCHEMAS[resource["kind"]])


def test_ingress_lets_the_largest_body_pass(render):
    from serving.settings import Settings

    [ingress] = of_kind(render("ingress"), "Ingress")
    sizes = {value for name, value in ingress["metadata"]["annotations"].items() if "body-size" in name}
    assert sizes == {str(Settings.max_body)}
