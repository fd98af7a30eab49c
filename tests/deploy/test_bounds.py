"""The bounds in pyproject.toml, the tested versions in constraints.txt, and the lowest ones of make check-lowest."""

from __future__ import annotations

import subprocess
import sys
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import ROOT


def pinned(text):
    lines = (line.split("==") for line in text.splitlines() if "==" in line)
    return {canonicalize_name(name): version for name, version in lines}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DEPENDENCIES = {
    requirement.name: requirement.specifier
    for requirement in map(Requirement, PROJECT["dependencies"] + EXTRAS["train"] + EXTRAS["export"] + EXTRAS["grpc"])
    if requirement.name != PROJECT["name"]
}
TESTED = pinned((ROOT / "constraints.txt").read_text())


def test_every_dependency_has_a_lower_bound():
    for name, specifier in DEPENDENCIES.items():
        assert [bound for bound in specifier if bound.operator == ">="], name


def test_tested_versions_are_within_the_bounds():
    for name, specifier in DEPENDENCIES.items():
        assert TESTED[name] in specifier, name


def test_check_lowest_uses_the_lower_bounds_and_otherwise_the_tested_versions():
    done = subprocess.run([sys.executable, ".ci/lowest"], cwd=ROOT, capture_output=True, text=True, check=True)
    bounds = {name: bound.version for name, each in DEPENDENCIES.items() for bound in each if bound.operator == ">="}
    assert pinned(done.stdout) == TESTED | bounds
