"""make sbom: bills of materials as CycloneDX."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

from tests.support import ROOT, missing

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12+deb13u1
Description: GNU C Library
 Package: no-package

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2026b-0+deb13u1
"""


@pytest.fixture(autouse=True)
def _installed():
    try:
        importlib.metadata.version("cyclonedx-bom")
    except importlib.metadata.PackageNotFoundError:
        missing("the package cyclonedx-bom")


def sbom(*arguments):
    line = [sys.executable, ROOT / "deploy" / "image" / "sbom", *arguments]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = arguments[-1].read_text()
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    return found, {each["name"]: each for each in found["components"]}


def installed(site, name, version):
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "RECORD").write_text("")


def test_image_lists_its_python_packages_and_those_of_debian(tmp_path):
    root = tmp_path / "root"
    installed(root / "opt/venv/lib/python3.14/site-packages", "litestar", "2.25.0")
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text(STATUS)
    found, parts = sbom("--root", root, tmp_path / "image.cdx.json")
    assert found["metadata"]["component"]["name"] == "mnist-service"
    assert found["metadata"]["component"]["type"] == "container"
    assert {name: part["version"] for name, part in parts.items()} == {
        "litestar": "2.25.0",
        "libc6": "2.41-12+deb13u1",
        "tzdata": "2026b-0+deb13u1",
    }
    assert parts["libc6"]["purl"] == "pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64"


def test_environment_lists_its_packages(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "environment"], check=True)
    [site] = (tmp_path / "environment" / "lib").glob("python*/site-packages")
    installed(site, "litestar", "2.25.0")
    found, parts = sbom(tmp_path / "environment", tmp_path / "sbom" / "wheel.cdx.json")
    assert found["metadata"]["component"]["type"] == "application"
    assert parts["litestar"]["purl"] == "pkg:pypi/litestar@2.25.0"
