"""The images: small, without build tools, with the labels of the project, and the same whenever they are built."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from tests.deploy.stack import COMPOSE, Engine, Stack
from tests.support import ROOT, missing

# The tests that use the stack of containers must run in one process.
pytestmark = pytest.mark.xdist_group("containers")

MEGABYTE = 1_000_000


@pytest.mark.parametrize(("program", "option"), [("haproxy", "-v"), ("prometheus", "--version")])
def test_other_images_have_the_versions_of_their_tags(stack, engine, program, option):
    """A stand-in of another version would hide its faults: 2.6 passed where 3.2 lost requests."""
    [(image, version)] = re.findall(rf"((?:prom/)?{program}:v?(\d+\.\d+)\S*)", COMPOSE)
    engine.require(image)
    assert f"version {version}." in engine.docker("run", "--rm", "--entrypoint", program, image, option)


def test_serving_image_is_small_and_has_no_tools_that_build_or_install(stack, engine, base):
    image = f"mnist-service:{stack.name}"
    assert engine.inspect(image)["Size"] - engine.inspect(base)["Size"] <= 250 * MEGABYTE
    program = """
        set -e
        for python in python /usr/local/bin/python; do
            $python -c "from importlib.util import find_spec
print([name for name in 'torch onnx pip ensurepip setuptools wheel pkg_resources'.split() if find_spec(name)])"
        done
        for name in gcc cc make pip pip3 wheel; do command -v $name || true; done
        find / -xdev -name 'pip-*.whl' 2>/dev/null || true
        ls -A /tmp /build 2>/dev/null || true
    """
    found = engine.docker("run", "--rm", "--entrypoint", "sh", image, "-c", program)
    assert found.split() == ["[]", "[]", "/tmp:"]


def test_image_labels_and_entrypoint_match_the_project(stack, engine):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for image in stack.name, f"{stack.name}-pipeline":
        config = engine.inspect(f"mnist-service:{image}")["Config"]
        labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
        assert labels["title"] == project["name"]
        assert labels["version"] == project["version"]
        assert labels["licenses"] == project["license"]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    assert engine.inspect(f"mnist-service:{stack.name}")["Config"]["Entrypoint"] == ["mnist-serve"]


def layers(engine: Engine, image: str) -> list[str]:
    return engine.inspect(image)["RootFS"]["Layers"]


def build(stack: Stack, engine: Engine, context: Path, *options: str) -> list[str]:
    """Build the serving image from ``context`` and return its layers."""
    if not engine.buildkit:
        missing("BuildKit (the classic builder would build the pipeline too)")
    image = f"mnist-service:{stack.name}-again"
    given = os.environ.keys() & {"PYTHON_VERSION", "DEBIAN_RELEASE"}
    chosen = [f"--build-arg={name}={os.environ[name]}" for name in given]
    engine.docker("build", "--quiet", "--target", "serving", "--tag", image, *chosen, *options, context)
    try:
        return layers(engine, image)
    finally:
        engine.docker("image", "rm", image)


def test_same_source_gives_the_same_layers_and_a_change_of_code_changes_one(stack, engine, tmp_path):
    """A second build without the cache, and then a build from a copy with another line."""
    before = layers(engine, f"mnist-service:{stack.name}")
    assert build(stack, engine, ROOT, "--no-cache") == before
    for entry in (ROOT / ".dockerignore").read_text().splitlines():
        if entry.startswith("!"):
            place = tmp_path / entry[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if entry.endswith("/") else shutil.copy
            copy(ROOT / entry[1:], place)
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    with (tmp_path / "serving" / "cli.py").open("a") as file:
        file.write("# another line\n")
    after = build(stack, engine, tmp_path)
    # The layers are the base image, the dependencies, the application, and the folders of its user.
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, False, True]
