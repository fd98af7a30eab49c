"""The parts of deploy/kubernetes that are added when needed: KEDA, gRPC, and the job that trains."""

from __future__ import annotations

import json
import os
import re

import pytest
import yaml

from serving.settings import Settings
from tests.deploy.test_kubernetes import of_kind, render
from tests.deploy.test_kubernetes_tls import several, strict
from tests.deploy.tools import DEPLOY, run, tool
from tests.support import ROOT, application

__all__ = ["render"]

# What version v1alpha1 of KEDA's ScaledObject allows, of what is used here. The API server drops other fields.
NAME, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
TRIGGER = strict(
    ["type", "metadata"],
    type={"enum": ["prometheus", "cpu"]},
    metricType={"enum": ["AverageValue", "Value", "Utilization"]},
    metadata={"type": "object", "additionalProperties": {"type": "string"}},
)
SCALED_OBJECT = strict(
    ["scaleTargetRef", "triggers"],
    scaleTargetRef=strict(["name"], name=NAME),
    minReplicaCount=COUNT,
    maxReplicaCount=COUNT,
    fallback=strict(["failureThreshold", "replicas"], failureThreshold=COUNT, replicas=COUNT),
    advanced=strict([], horizontalPodAutoscalerConfig=strict([], name=NAME)),
    triggers=several(TRIGGER, 10),
)


def test_keda_scales_the_deployment_by_requests_in_flight_and_alone(render, tmp_path):
    # The import takes two seconds. Every process of the tests would pay for it at the top of this file.
    import jsonschema

    resources = render("keda")
    [scaled] = of_kind(resources, "ScaledObject")
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    jsonschema.validate(scaled["spec"], SCALED_OBJECT)
    spec, metadata = scaled["spec"], scaled["spec"]["triggers"][0]["metadata"]
    # Two autoscalers would work against each other. KEDA's has the name of the one that `production` made.
    assert not of_kind(resources, "HorizontalPodAutoscaler")
    [before] = of_kind(render("production"), "HorizontalPodAutoscaler")
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["name"] == before["metadata"]["name"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (
        before["spec"]["minReplicas"],
        before["spec"]["maxReplicas"],
    )
    assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
    # New pods come before the service rejects predictions.
    assert int(metadata["threshold"]) < Settings.max_concurrency
    # Three pods, of which one has 20 requests in flight. The pods of another namespace do not count.
    query = metadata["query"]
    labels = f'job="mnist-service", namespace="{scaled["metadata"]["namespace"]}"'
    [name] = re.findall(r"mnist_\w+", query)
    series = {f'{labels}, pod="{pod}"': value for pod, value in (("a", 20), ("b", 4), ("c", 3))}
    series['job="mnist-service", namespace="other", pod="d"'] = 100
    inputs = [{"series": f"{name}{{{key}}}", "values": f"{value}x20"} for key, value in series.items()]
    case = {"expr": query, "eval_time": "3m", "exp_samples": [{"labels": "{}", "value": 27}]}
    test = {"interval": "15s", "input_series": inputs, "promql_expr_test": [case]}
    (tmp_path / "test.yml").write_text(json.dumps({"tests": [test]}))
    done = run(tool("promtool", "Debian: prometheus"), "test", "rules", tmp_path / "test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    with application() as client:
        assert f"# TYPE {name} gauge" in client.get("/metrics").text


@pytest.mark.parametrize("overlay", ["local", "packaged", "production"])
def test_grpc_reaches_the_port_of_the_pod(render, overlay, tmp_path):
    import kubernetes_validate

    kubernetes = os.path.relpath(DEPLOY / "kubernetes", tmp_path)
    both = {"namespace": "mnist-service", "resources": [f"{kubernetes}/overlays/{overlay}"]}
    (tmp_path / "kustomization.yaml").write_text(json.dumps(both | {"components": [f"{kubernetes}/grpc"]}))
    resources = render(tmp_path)
    for kind in "Deployment", "Service", "NetworkPolicy":
        for resource in of_kind(resources, kind):
            kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
            assert resource["metadata"]["namespace"] == "mnist-service"
    [deployment], [policy] = of_kind(resources, "Deployment"), of_kind(resources, "NetworkPolicy")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    port = int({each["name"]: each["value"] for each in container["env"]}["MNIST_GRPC_PORT"])
    assert {"name": "grpc", "containerPort": port} in container["ports"]
    assert {"protocol": "TCP", "port": "grpc"} in policy["spec"]["ingress"][0]["ports"]
    services = {each["metadata"]["name"]: each["spec"] for each in of_kind(resources, "Service")}
    assert services["mnist-service-grpc"]["clusterIP"] == "None"
    for spec in services.values():
        assert spec["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
        [grpc] = [each for each in spec["ports"] if each["name"] == "grpc"]
        assert (grpc["port"], grpc["targetPort"], grpc["appProtocol"]) == (port, "grpc", "kubernetes.io/h2c")


def test_job_trains_and_publishes_as_compose_does(render):
    [job] = of_kind(render("pipeline"), "Job")
    [image] = {each["image"] for each in job["spec"]["template"]["spec"]["initContainers"]}
    assert image.endswith("-pipeline")
    pod = job["spec"]["template"]["spec"]
    [train], [export] = pod["initContainers"], pod["containers"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for container in train, export:
        line = re.sub(r"\$\{\w+:?-(.*?)\}", r"\1", services[container["name"]]["command"]).split()
        assert [*container["command"], *container["args"]] == line
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "models"}
    mounts = {mount["name"]: mount for mount in export["volumeMounts"]}
    assert "readOnly" not in mounts["models"]
    # A container that starts again must find the run. It is in the pod, and not in the container.
    assert pod["restartPolicy"] == "OnFailure"
    assert {"runs", "data"} <= {mount["name"] for mount in train["volumeMounts"]}
    # The NetworkPolicy of the service lets nothing out, but training downloads MNIST.
    [policy] = of_kind(render("production"), "NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"].items() - job["spec"]["template"]["metadata"]["labels"].items()
