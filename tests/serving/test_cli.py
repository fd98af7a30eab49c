"""mnist-predict reads pictures without a server, and both commands explain a mistake in one line."""

from __future__ import annotations

import json

import pytest

from serving.errors import SettingsError
from serving.settings import Settings
from tests.support import ROOT

SEVEN = ROOT / "tests" / "seven.png"


def test_predict_prints_a_table(run):
    done = run("mnist-predict", SEVEN, SEVEN)
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["file", "digit", "confidence", "accepted"]
    assert [row.split()[:2] for row in rows] == [[str(SEVEN), "7"]] * 2


def test_predict_prints_json(run):
    response = json.loads(run("mnist-predict", "--json", SEVEN).stdout)
    assert response["model"] == {"name": "mnist", "version": "1"}
    [prediction] = response["predictions"]
    assert prediction["file"] == str(SEVEN)
    assert prediction["digit"] == 7
    assert len(prediction["probabilities"]) == 10


def test_predict_explains_a_mistake_in_one_line(run, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for arguments, message in (
        ([tmp_path / "none.png"], "none.png: No such file"),
        ([text], "text.png: not a picture"),
        ([tmp_path], "directory"),
        ([SEVEN, "--repository", tmp_path], "holds no model"),
    ):
        done = run("mnist-predict", *arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert run("mnist-predict").returncode == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 65536}, "--port 65536: must be between 0 and 65535"),
        ({"max_batch": 0}, "--max-batch 0: must be at least 1"),
        ({"versions": -1}, "--versions -1: must be at least 0; 0 means all versions"),
        ({"poll": float("nan")}, "--poll nan: must be at least 0 and finite; 0 means no scans"),
        ({"drain": -1.0}, "--drain -1.0: must be at least 0 and finite"),
        ({"log_level": "loud"}, "--log-level loud: must be one of debug, info, warning, error"),
        ({"log_format": "xml"}, "--log-format xml: must be one of json, text"),
    ],
)
def test_setting_names_its_value_and_its_rule(settings, message):
    with pytest.raises(SettingsError) as raised:
        Settings(**settings)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("MNIST_PORT", "x", "MNIST_PORT=x: must be a whole number"),
        ("MNIST_POLL", "often", "MNIST_POLL=often: must be a number"),
        ("MNIST_ACCESS_LOG", "maybe", "MNIST_ACCESS_LOG=maybe: must be on or off"),
    ],
)
def test_variable_names_its_value_and_its_type(variable, text, message):
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment({variable: text})
    assert str(raised.value) == message


def test_settings_come_from_variables():
    given = {"MNIST_PORT": "0", "MNIST_ACCESS_LOG": "Yes", "MNIST_REPOSITORY": "models", "OTHER": "x"}
    settings = Settings.from_environment(given)
    assert (settings.port, settings.access_log, str(settings.repository)) == (0, True, "models")
    assert settings.model == "mnist"
