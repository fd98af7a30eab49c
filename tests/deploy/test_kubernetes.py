"""The files in deploy/kubernetes, rendered and compared with their schemas. No cluster is needed."""

from __future__ import annotations

import functools
import json
import os
import re

import pytest
import yaml

from serving.settings import Settings
from tests.deploy.tools import DEPLOY, run, tool
from tests.support import BIN, ROOT, application

OVERLAYS = sorted(path.name for path in (DEPLOY / "kubernetes" / "overlays").iterdir())
WITHOUT_PODS = {"ingress", "gateway"}
REPOSITORIES = ["../repository", "../repository-shared"]
USER = int(re.search(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1])


@pytest.fixture(scope="module")
def render():
    kubectl = tool("kubectl", "from the Kubernetes project")

    @functools.cache
    def text(overlay):
        done = run(kubectl, "kustomize", DEPLOY / "kubernetes" / "overlays" / overlay)
        assert done.returncode == 0, done.stderr
        assert not done.stderr, "kubectl warns of a deprecated field"
        return json.dumps(list(yaml.safe_load_all(done.stdout)))

    return lambda overlay: json.loads(text(overlay))


def all_containers(pod):
    return pod["containers"] + pod.get("initContainers", [])


def of_kind(resources, kind):
    return [resource for resource in resources if resource["kind"] == kind]


@pytest.mark.parametrize("overlay", [*OVERLAYS, *REPOSITORIES])
def test_overlay_is_valid(render, overlay):
    import kubernetes_validate

    resources = render(overlay)
    unknown = []
    for resource in resources:
        try:
            kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.append(resource["kind"])
        assert resource["kind"] == "Namespace" or resource["metadata"]["namespace"] == "mnist-service"
    # Kubernetes has no schemas for these kinds, because other projects define them.
    assert set(unknown) <= {
        *("ServiceMonitor", "PrometheusRule", "InferenceService"),
        *("Gateway", "HTTPRoute", "ScaledObject"),
    }


def test_validation_finds_an_unknown_field(render):
    import kubernetes_validate

    [deployment] = of_kind(render("local"), "Deployment")
    deployment["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("overlay", ["local", "packaged", "production", "keda", "triton"])
def test_selectors_ports_and_names_match(render, overlay):
    resources = render(overlay)
    [deployment] = of_kind(resources, "Deployment")
    [service] = of_kind(resources, "Service")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert labels
    selectors = [deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]]
    selectors += [policy["spec"]["podSelector"]["matchLabels"] for policy in of_kind(resources, "NetworkPolicy")]
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in of_kind(resources, "PodDisruptionBudget")]
    assert all(selector == labels for selector in selectors)
    [container] = pod["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    mounted = [mount["name"] for each in all_containers(pod["spec"]) for mount in each["volumeMounts"]]
    assert set(mounted) == volumes.keys()
    [claim] = of_kind(render("../repository"), "PersistentVolumeClaim")
    if overlay == "packaged":
        assert "models" not in volumes
    else:
        assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    for scaler in of_kind(resources, "HorizontalPodAutoscaler") + of_kind(resources, "ScaledObject"):
        assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        assert "replicas" not in deployment["spec"], "kubectl apply would overwrite the number that the autoscaler sets"
    for monitor in of_kind(resources, "ServiceMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_deleting_an_overlay_deletes_no_model(render, overlay):
    kinds = {resource["kind"] for resource in render(overlay)}
    assert not kinds & {"Namespace", "PersistentVolumeClaim"}
    [shared] = of_kind(render("../repository-shared"), "PersistentVolumeClaim")
    assert shared["spec"]["accessModes"] == ["ReadWriteMany"]
    assert shared["spec"]["storageClassName"], "few default classes support ReadWriteMany"


@pytest.mark.parametrize("overlay", ["local", "packaged", "production", "triton", "pipeline", "kserve"])
def test_pod_meets_the_restricted_security_level(render, overlay):
    resources = render(overlay)
    [namespace] = of_kind(render("../repository"), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    # The pod of KServe itself is made by its controller.
    pod = (of_kind(resources, "Deployment") + of_kind(resources, "Job"))[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    for container in all_containers(pod):
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}


def test_no_service_of_the_namespace_sets_a_variable_in_a_pod(render):
    """A Service named mnist would set MNIST_PORT to an address, which the service reads as its own setting."""
    for overlay in OVERLAYS:
        resources = render(overlay)
        owners = of_kind(resources, "Deployment") + of_kind(resources, "Job")
        pods = [resource["spec"]["template"]["spec"] for resource in owners]
        pods += [resource["spec"]["predictor"] for resource in of_kind(resources, "InferenceService")]
        assert pods or overlay in WITHOUT_PODS
        assert all(pod["enableServiceLinks"] is False for pod in pods), overlay


def test_pod_uses_real_settings_routes_and_user(render):
    pod = of_kind(render("production"), "Deployment")[0]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    settings = Settings.from_environment(environment)
    assert pod["terminationGracePeriodSeconds"] > settings.drain + settings.grace
    # After SIGTERM the pod must serve new requests until every load balancer knows that it ends.
    probe = container["readinessProbe"]
    assert settings.drain >= probe["periodSeconds"] * probe["failureThreshold"] + 5
    assert pod["securityContext"]["runAsUser"] == USER
    with application() as client:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert client.get(container[probe]["httpGet"]["path"]).status_code == 200


@pytest.mark.parametrize("overlay", ["local", "triton", "kserve"])
def test_init_container_copies_the_packaged_model_into_an_empty_volume(render, overlay, tmp_path):
    resources = render(overlay)
    [owner] = of_kind(resources, "Deployment") + of_kind(resources, "Job")
    [first] = owner["spec"]["template"]["spec"]["initContainers"]
    program = first["args"][0].replace('"/volume', f'"{tmp_path}')

    def copy():
        done = run(BIN / "python", *first["command"][1:], program, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return sorted(path.name for path in (tmp_path / "mnist").iterdir())

    (tmp_path / "lost+found").mkdir()
    assert copy() == copy() == ["1", "config.pbtxt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lost+found", "mnist"]
    with application(repository=tmp_path) as client:
        assert client.get("/v2/health/ready").status_code == 200
    for other in "2", ".retired-1":
        (tmp_path / "mnist" / "1").rename(tmp_path / "mnist" / other)
        assert other in copy()
        assert "1" not in copy()
        (tmp_path / "mnist" / other).rename(tmp_path / "mnist" / "1")


def test_kserve_and_triton_serve_the_same_repository(render):
    [service] = of_kind(render("kserve"), "InferenceService")
    [claim] = of_kind(render("../repository"), "PersistentVolumeClaim")
    model = service["spec"]["predictor"]["model"]
    assert model["storageUri"] == f"pvc://{claim['metadata']['name']}/"
    [triton] = of_kind(render("triton"), "Deployment")
    container = triton["spec"]["template"]["spec"]["containers"][0]
    repository = [argument for argument in container["args"] if argument.startswith("--model-repository=")]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
    assert repository == [f"--model-repository={mount['mountPath']}"]
    for server in model, container:
        assert {"--model-control-mode=poll", "--exit-on-error=false"} <= set(server["args"])
        assert server["readinessProbe"]["httpGet"]["path"] == "/v2/models/mnist/ready"


def test_triton_gets_sigterm_when_load_balancers_know_that_its_pod_ends(render):
    """From SIGTERM on, Triton rejects new requests, and finishes the others within 30 s (--exit-timeout-secs)."""
    pod = of_kind(render("triton"), "Deployment")[0]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert not any(argument.startswith("--exit-timeout-secs") for argument in container["args"])
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    probe = container["readinessProbe"]
    # Three failures, unless the manifest has another number.
    assert int(seconds) >= probe["periodSeconds"] * probe.get("failureThreshold", 3)
    assert pod["terminationGracePeriodSeconds"] > int(seconds) + 30


def test_packaged_model_has_a_configuration_for_triton():
    from export.triton import CONFIG, configuration
    from serving.models import bundle
    from serving.settings import RELEASE

    manifest = bundle.read(RELEASE / "mnist" / "1").manifest
    written = (RELEASE / "mnist" / CONFIG).read_text()
    assert written == configuration("mnist", manifest.inputs, manifest.outputs)
    # The batch axis is in every shape, so the novelty scores have the shape [N] as with mnist-serve, and not [N, 1].
    assert re.findall(r'"(\w+)" data_type: (\w+) dims: (.*?) }', written) == [
        ("images", "TYPE_UINT8", "[-1, 28, 28]"),
        ("logits", "TYPE_FP32", "[-1, 10]"),
        ("probabilities", "TYPE_FP32", "[-1, 10]"),
        ("novelty", "TYPE_FP32", "[-1]"),
    ]
    assert "max_batch_size: 0\n" in written


@pytest.mark.parametrize("overlay", ["local", "packaged", "production"])
def test_keys_of_a_secret_are_mounted_where_the_settings_name_them(render, overlay, tmp_path):
    import kubernetes_validate

    kubernetes = os.path.relpath(DEPLOY / "kubernetes", tmp_path)
    both = {"resources": [f"{kubernetes}/overlays/{overlay}"], "components": [f"{kubernetes}/keys"]}
    (tmp_path / "kustomization.yaml").write_text(json.dumps(both))
    [deployment] = of_kind(render(tmp_path), "Deployment")
    kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    settings = Settings.from_environment({entry["name"]: entry["value"] for entry in container["env"]})
    assert (settings.predict_keys_file, settings.admin_keys_file) == ("/keys/predict.keys", "/keys/admin.keys")
    assert {"name": "keys", "mountPath": "/keys", "readOnly": True} in container["volumeMounts"]
    [secret] = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "keys"]
    assert secret == {"secretName": "mnist-keys", "defaultMode": 0o440}
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]


# The alerts as a resource.

# What the definition of PrometheusRule allows, version v1 of the operator's 0.82. The API server drops other fields.
DURATION = {"type": "string", "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
RULE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["alert", "expr"],
    "properties": {
        "alert": {"type": "string"},
        "expr": {"type": "string"},
        **dict.fromkeys(("for", "keep_firing_for"), DURATION),
        **dict.fromkeys(("labels", "annotations"), TEXTS),
    },
}
PROMETHEUS_RULE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["groups"],
    "properties": {
        "groups": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "rules"],
                "properties": {"name": {"type": "string"}, "rules": {"type": "array", "items": RULE, "minItems": 10}},
            },
        }
    },
}


def test_resource_of_the_operator_has_the_same_alerts(render):
    import jsonschema

    done = run(DEPLOY / "prometheus" / "as-resource")
    written = DEPLOY / "kubernetes" / "overlays" / "production" / "prometheusrule.yaml"
    assert done.stdout == written.read_text(), "run: deploy/prometheus/as-resource"
    [rule] = of_kind(render("production"), "PrometheusRule")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["spec"] == yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    jsonschema.validate(rule["spec"], PROMETHEUS_RULE)


def test_alerts_ask_for_the_job_of_both_ways_to_scrape(render):
    """The operator names the job after the Service."""
    configured = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    [service] = of_kind(render("production"), "Service")
    asked = set(re.findall(r'job=~"(.*?)"', (DEPLOY / "prometheus" / "alerts.yml").read_text()))
    assert asked == {f"{configured[0]['job_name']}|{service['metadata']['name']}"}
