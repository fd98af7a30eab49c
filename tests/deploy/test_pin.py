"""deploy/pin with a registry on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.deploy.tools import DEPLOY, run, tool
from tests.support import ROOT

INDEX = "application/vnd.oci.image.index.v1+json"


class Registry(ThreadingHTTPServer):
    """A registry whose every tag is the index of an image. It wants a token, as Docker Hub does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = self.realm = f"http://127.0.0.1:{self.server_address[1]}"
        self.release = 1
        self.asked: list[str] = []

    def content(self, path: str) -> bytes:
        return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "of": path, "release": self.release}).encode()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Registry

    def do_GET(self) -> None:
        path, authorization = self.path, self.headers.get("authorization")
        self.server.asked.append(path)
        if path.startswith("/token?"):
            scope = "service=registry&scope=repository"
            is_right = authorization == "Basic dTpw" and path.startswith(f"/token?{scope}")
            self.respond(200 if is_right else 403, b'{"token": "for-a-minute"}')
        elif authorization != "Bearer for-a-minute":
            name = path.split("/v2/")[1].split("/manifests/")[0]
            scheme = f'Bearer realm="{self.server.realm}/token",service="registry",scope="repository:{name}:pull"'
            self.respond(401, b"{}", scheme)
        elif "missing" in path:
            self.respond(404, b"{}")
        elif INDEX not in self.headers["accept"]:
            self.respond(406, b"{}")
        else:
            self.respond(200, self.server.content(path))

    def respond(self, status: int, content: bytes, challenge: str = "") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        if challenge:
            self.send_header("www-authenticate", challenge)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def pin(registry, tmp_path):
    """A function that runs deploy/pin in a copy of the project."""
    copy = tmp_path / "project"
    shutil.copytree(DEPLOY / "kubernetes", copy / "deploy" / "kubernetes")
    for file in "deploy/pin", "docker-compose.yml", "Dockerfile":
        shutil.copy(ROOT / file, copy / file)
    (copy / ".env").write_text("# settings\nPYTHON_VERSION=3.13\n")
    (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": "dTpw"} for host in HOSTS}}))
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHON_VERSION", "DEBIAN_RELEASE")}
    environment = outside | {"DOCKER_CONFIG": str(tmp_path), "NO_PROXY": "127.0.0.1"}

    def pin(*arguments: str):
        mirrors = [f"--mirror={host}={registry.url}" for host in HOSTS]
        return run(sys.executable, copy / "deploy" / "pin", *mirrors, *arguments, env=environment)

    pin.project = copy
    return pin


HOSTS = ("docker.io", "nvcr.io")
PLACES = {
    "haproxy": "library/haproxy",
    "prometheus": "prom/prometheus",
    "grafana": "grafana/grafana",
    **dict.fromkeys(("packaged-model", "serving", "train"), "library/python"),
}


def written(project: Path) -> dict[str, str]:
    """Return the pinned image of each service."""
    services = yaml.safe_load((project / "deploy" / "compose.pinned.yml").read_text())["services"]
    return {name: each.get("image") or each["build"]["args"]["BASE"] for name, each in services.items()}


def test_every_image_of_others_gets_the_digest_of_its_index_and_a_second_run_renews_it(pin, registry):
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    # Nothing is left out: what is not built here is pulled.
    assert {name for name, each in compose.items() if "build" in each or "mnist-service" not in each["image"]} == set(
        PLACES
    )
    for registry.release in 1, 2:
        done = pin()
        assert done.returncode == 0, done.stderr
        found = written(pin.project)
        assert found.keys() == PLACES.keys()
        for name, image in found.items():
            tagged, _, digest = image.partition("@")
            assert tagged == (compose[name].get("image") if "python" not in image else "python:3.13-slim-trixie")
            path = f"/v2/{PLACES[name]}/manifests/{tagged.rpartition(':')[2]}"
            assert digest == f"sha256:{hashlib.sha256(registry.content(path)).hexdigest()}"
    # A second change of a tag: --check names it and changes nothing.
    assert pin("--check").returncode == 0
    registry.release = 3
    done = pin("--check")
    assert done.returncode == 1
    assert len(re.findall(r"(?m)^\S+: sha256:\w+, and the tag now has sha256:\w+$", done.stdout)) == 5
    assert "deploy/pin" in done.stdout
    assert written(pin.project) == found


@pytest.mark.parametrize(
    "line",
    ["PYTHON_VERSION=3.12  # an older one", "export PYTHON_VERSION = '3.12'", '\ufeffPYTHON_VERSION="3.12" # older'],
)
def test_settings_are_read_as_compose_reads_them(pin, line):
    (pin.project / ".env").write_text(f"{line}\nDEBIAN_RELEASE= # the default\n")
    done = pin()
    assert done.returncode == 0, done.stderr
    assert written(pin.project)["serving"].startswith("python:3.12-slim-trixie@")


def test_file_that_cannot_be_read_or_written_is_one_line(pin):
    (pin.project / ".env").write_bytes(b"\xff")
    assert pin().stderr.splitlines()[0].startswith("deploy/pin: 'utf-8' codec can't decode")
    (pin.project / ".env").unlink()
    (pin.project / "deploy" / ".compose.pinned.yml.new").mkdir()
    done = pin()
    assert done.returncode == 1
    assert "Is a directory" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_component_pins_the_images_of_an_overlay(pin):
    assert pin().returncode == 0
    triton = pin.project / "deploy" / "kubernetes" / "overlays" / "triton" / "kustomization.yaml"
    triton.write_text(triton.read_text().replace("components: [", "components: [../../pinned, "))
    done = run(tool("kubectl", "from the Kubernetes project"), "kustomize", triton.parent)
    assert re.findall(r"image: (nvcr\S+)", done.stdout)[0].startswith("nvcr.io/nvidia/tritonserver@sha256:"), (
        done.stderr
    )


@pytest.mark.parametrize(("image", "reason"), [("missing:1", "404"), ("127.0.0.1:1/digits:1", "refused")])
def test_image_without_a_digest_changes_no_file(pin, image, reason):
    assert pin().returncode == 0
    before = written(pin.project)
    compose = pin.project / "docker-compose.yml"
    compose.write_text(compose.read_text().replace("image: haproxy:3.2", f"image: {image}"))
    done = pin()
    assert done.returncode == 1
    assert done.stderr.startswith(f"deploy/pin: {image}: no digest from http")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert written(pin.project) == before


def test_password_is_not_sent_without_encryption(pin, registry):
    registry.realm = "http://registry.example.org"
    done = pin()
    assert done.returncode == 1
    assert "wants the password sent to http://registry.example.org/token, which is not HTTPS" in done.stderr


def test_mirror_without_an_address_is_a_usage_error(pin):
    done = pin("--mirror", "docker.io")
    assert done.returncode == 2
    assert "--mirror docker.io: must be REGISTRY=URL" in done.stderr
