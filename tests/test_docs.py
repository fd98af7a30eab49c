"""The README cannot rot: its commands, flags, variables, routes and curl lines are the real ones."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
import typing
from dataclasses import fields

import pytest

from serving.settings import Settings, described, variable
from tests.support import BIN, ROOT, service
from training.config import TrainConfig

README = (ROOT / "README.md").read_text()
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
CURL = [line for line in SHELL.splitlines() if "curl" in line]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def shown(value):
    text = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
    return f"`{text}`" if isinstance(text, str) and text else str(text)


def settings_rows():
    """A row of the README for each setting of the service."""
    for name, _, text in described():
        default = "the packaged one" if name == "repository" else shown(getattr(Settings, name, ""))
        yield f"| `--{name.replace('_', '-')}` | `{variable(name)}` | {default} | {text} |"


def train_rows():
    """A row of the README for each setting of a training run."""
    hints = typing.get_type_hints(TrainConfig, include_extras=True)
    for field in fields(TrainConfig):
        text = typing.get_args(hints[field.name])[1]
        yield f"| `--{field.name.replace('_', '-')}` | {shown(field.default)} | {text} |"


@pytest.mark.parametrize("row", [*settings_rows(), *train_rows()])
def test_every_setting_has_its_row(row):
    assert row in README


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_command_and_its_flags_are_told(command, run):
    assert f"`{command}" in README
    assert command in SHELL
    shown_help = run(command, "--help").stdout
    assert shown_help.splitlines()[-1].strip().startswith(command), "a help ends with an example"
    for flag in re.findall(r"^  (--[a-z-]+)", shown_help, re.MULTILINE):
        if flag not in ("--version", "--help"):
            assert flag in README, f"{command} {flag} is not in the README"


def test_every_flag_in_the_readme_exists(run):
    helps = "".join(run(command, "--help").stdout for command in SCRIPTS)
    used = {word for line in SHELL.splitlines() if "mnist-" in line for word in line.split() if word.startswith("--")}
    assert used
    for flag in used:
        assert flag in helps


def test_every_make_target_is_told():
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"setup", "run", "serve", "test", "check", "bench", "help"} <= set(targets)
    for target in targets:
        assert f"make {target}" in README


@pytest.fixture(scope="module")
def url():
    with service() as (url, _):
        yield url


@pytest.mark.parametrize("line", CURL)
def test_curl_lines_run(url, line):
    line = line.replace("http://127.0.0.1:8000", url).replace("curl", "curl --silent --show-error --fail-with-body", 1)
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if "seven.png" in line:
        assert '"digit":7' in done.stdout


def test_routes_are_told(url):
    import httpx

    for path, methods in httpx.get(f"{url}/schema").json()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in README


def test_predict_lines_run():
    lines = [line for line in SHELL.splitlines() if line.startswith("mnist-predict")]
    assert lines
    for line in lines:
        command, *arguments = shlex.split(line)
        subprocess.run([BIN / command, *arguments], cwd=ROOT, check=True, capture_output=True)
