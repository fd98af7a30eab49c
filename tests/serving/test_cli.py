"""mnist-predict reads pictures without a server, and both commands explain a mistake in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from serving.errors import SettingsError
from serving.settings import Settings
from tests.serving.models.bundles import publish
from tests.support import BIN, ROOT, service, until

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


def test_command_names_the_models_of_a_repository_without_the_default_model(run, tmp_path):
    """Who has trained letters has no model mnist, and forgets --model."""
    publish(tmp_path, 1, "letters")
    publish(tmp_path, 1, "tick-marks")
    for command in (["mnist-predict", SEVEN], ["mnist-serve", "--port", "0"]):
        done = run(*command, "--repository", tmp_path)
        assert done.returncode == 1
        assert "holds no model 'mnist'; it holds letters, tick-marks; choose with --model" in done.stderr


def test_only_model_of_a_repository_is_used(run, tmp_path):
    publish(tmp_path, 1, "letters")
    assert run("mnist-predict", SEVEN, "--repository", tmp_path).returncode == 0
    with service("--repository", tmp_path) as (url, _):
        assert httpx.get(f"{url}/certificate", timeout=60).json()["name"] == "letters"
    done = run("mnist-predict", SEVEN, "--repository", tmp_path, "--model", "mnist")
    assert "holds no model 'mnist'; it holds letters; choose with --model" in done.stderr


def test_folder_that_is_no_repository_is_named_with_the_way_out(run, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "runs" / "letters").mkdir(parents=True)
    (tmp_path / "runs" / "letters" / "run.json").touch()
    (tmp_path / "models" / "file").touch()
    (tmp_path / "models" / "loop").symlink_to("loop")
    publish(tmp_path / "models", 1, "letters")
    way_out = "and not a repository; use --repository models --model letters"
    for arguments, message in (
        (["--repository", "nosuch"], "nosuch does not exist; publish a model there with mnist-export RUN --repository"),
        (["--repository", "models/letters"], f"models/letters is a model {way_out}"),
        (["--repository", "models/letters/1"], f"models/letters/1 is one version of a model {way_out}"),
        (["--repository", "runs/letters"], "is a run and not a repository; use mnist-export runs/letters --repository"),
        (["--repository", "models/file"], "models/file is a file; name the folder that holds <name>/<version>/"),
        (["--repository", "models/loop"], "models/loop/mnist cannot be read: Too many levels of symbolic links"),
        (["--model", "letters"], "the packaged repository holds no model 'letters', only mnist; name yours with --rep"),
    ):
        for command in (["mnist-predict", SEVEN], ["mnist-serve", "--port", "0"]):
            done = run(*command, *arguments, cwd=tmp_path)
            assert done.returncode == 1
            assert message in done.stderr.splitlines()[-1].replace(f"{tmp_path}/", "")
            assert "Traceback" not in done.stderr


def test_interruption_before_the_service_is_ready_is_no_error():
    code = """
import serving.api.app
def interrupted(*_):
    raise KeyboardInterrupt
serving.api.app.create_app = interrupted
from serving.cli import serve
serve(["--port", "0"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, "Stopped.\n")


def test_argument_of_serve_gets_the_option_or_the_command_that_takes_it(run, tmp_path):
    for argument, way_out in (
        (tmp_path, f"--repository {tmp_path}"),
        ("nosuch", "--repository nosuch"),
        ("long" * 100, f"--repository {'long' * 100}"),
        (SEVEN, f"mnist-predict {SEVEN}"),
    ):
        done = run("mnist-serve", argument)
        assert done.returncode == 2
        assert f"is no command of mnist-serve; did you mean {way_out}?" in done.stderr


def test_forgotten_value_of_a_setting_is_named(run, tmp_path):
    for setting, following in (("--feedback", "--port"), ("--uds", "--rollout"), ("--workers", "--repository")):
        done = run("mnist-serve", setting, following, "1", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == f"Error: {setting}: needs a value, but {following} follows it"
    assert list(tmp_path.iterdir()) == []


def test_misspelt_file_gets_the_name_of_a_similar_one(run, tmp_path):
    shutil.copy(SEVEN, tmp_path / "my seven.png")
    (tmp_path / "other").mkdir()
    for name, hint in (
        ("my sevn.png", "; did you mean 'my seven.png'?"),
        ("x", ""),
        ("nowhere/seven.png", ""),
        ("", ""),
    ):
        done = run("mnist-predict", name, cwd=tmp_path)
        assert done.returncode == 3
        assert done.stderr.endswith(f"{hint}\n")
        assert ("did you mean" in done.stderr) == bool(hint)


def test_predict_explains_a_mistake_in_one_line(run, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([tmp_path / "none.png"], "none.png: No such file"),
        ([text], "text.png: not a picture"),
        ([tmp_path / "empty"], "the folder holds no picture"),
        ([SEVEN, "--repository", tmp_path], "holds no model"),
    ):
        done = run("mnist-predict", *arguments)
        assert done.returncode == (1 if "--repository" in arguments else 3)
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert run("mnist-predict").returncode == 2


@pytest.mark.parametrize("command", [["mnist-serve", "--port", "0"], ["mnist-predict", "x.png"]])
def test_line_break_in_a_path_makes_no_second_line_of_an_error(run, tmp_path, command):
    done = run(*command, f"--repository={tmp_path}/my\nmodels")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"Error: {tmp_path}/my\\nmodels does not exist; publish a model there with mnist-export RUN "
        f"--repository {tmp_path}/my\\nmodels"
    ]


@pytest.mark.parametrize("command", [["mnist-serve", "--port", "0"], ["mnist-predict", "x.png"]])
def test_tilde_stands_for_the_home_folder(run, tmp_path, command):
    """A shell does not replace it after a "=", and nobody replaces it in a file of variables."""
    for more, variables in ((["--repository=~/models"], {}), ([], {"MNIST_REPOSITORY": "~/models"})):
        if variables and command[0] == "mnist-predict":
            continue
        done = run(*command, *more, env=os.environ | {"HOME": str(tmp_path)} | variables)
        assert f"Error: {tmp_path}/models does not exist" in done.stderr


@pytest.mark.parametrize(
    "command",
    [["mnist-serve", "--repository"], ["mnist-predict", "x", "--repository"], ["mnist-predict", "x", "--output"]],
)
def test_empty_path_is_not_the_current_folder(run, command):
    """It comes from a variable of a shell that is not set."""
    done = run(*command, "")
    assert done.returncode == 2
    assert re.search(rf"Error: Invalid value for '{command[-1]}'.*: must not be empty$", done.stderr)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 65536}, "--port 65536: must be between 0 and 65535, or -1 for no port"),
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


# Variables that Kubernetes sets for a Service named "mnist"


LINKS = {"MNIST_PORT": "tcp://10.0.0.1:80", "MNIST_SERVICE_HOST": "10.0.0.1", "MNIST_PORT_80_TCP_ADDR": "10.0.0.1"}


@pytest.mark.parametrize("link", ["tcp://10.0.0.1:80", "udp://10.0.0.1:53", "tcp://[fd00::1]:80"])
def test_variable_of_a_kubernetes_service_is_ignored_with_a_warning(link, caplog):
    assert Settings.from_environment(LINKS | {"MNIST_PORT": link}).port == Settings.port
    assert f"MNIST_PORT={link} is ignored: Kubernetes sets it" in caplog.text


def test_command_ignores_the_variable_of_a_kubernetes_service(run):
    # The wrong setting ends the command when all settings are read.
    done = run("mnist-serve", "--max-batch", 0, env=os.environ | LINKS)
    warning, *_, error = done.stderr.splitlines()
    assert warning.startswith("WARNING: MNIST_PORT=tcp://10.0.0.1:80 is ignored: Kubernetes sets it")
    assert error == "Error: --max-batch 0: must be at least 1"
    done = run("mnist-serve", env=os.environ | {"MNIST_PORT": "10.0.0.1"})
    assert done.returncode == 2
    assert "MNIST_PORT" in done.stderr


# The address


def test_unspecified_ipv6_address_accepts_ipv4_too():
    with service("--host", "::", "--predict-keys", "key") as (url, _):
        assert re.fullmatch(r"http://\[::\]:\d+", url)
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(url.replace("[::]", host) + "/v2/health/live", timeout=60).status_code == 200


def test_error_for_a_port_in_use_names_the_flag_and_the_variable(run):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run("mnist-serve", "--port", port)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error == (
        f"Error: cannot listen on 127.0.0.1 port {port}: Address already in use. "
        "Choose another port with --port or MNIST_PORT, or another address with --host or MNIST_HOST."
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no.such.name.invalid", "." * 300])
def test_address_that_cannot_be_used_is_one_line(run, host):
    done = run("mnist-serve", "--host", host, "--port", 0, "--workers", 2)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: cannot listen on {host} port 0: ")
    assert len(done.stderr.splitlines()) == 1


# Standard streams that cannot be used


def free_port():
    """A port that the system gives out next only after many others. The service cannot tell its own here."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def shell(line):
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("redirections", "status", "lines"),
    [
        (">/dev/full", 1, ["Error: cannot write the output: No space left on device"]),
        (">&-", 1, ["Error: cannot write the output: it is closed"]),
        (">/dev/full 2>&1", 1, []),
        ("<&- >&- 2>&-", 1, []),
        ("<&- 2>&-", 0, []),
    ],
)
def test_predict_says_in_one_line_that_it_cannot_write(redirections, status, lines):
    done = shell(f"{BIN}/mnist-predict {SEVEN} {redirections}")
    assert (done.returncode, done.stderr.splitlines()) == (status, lines)


def test_help_lists_each_command_in_a_whole_sentence(run):
    assert "tune  Find the best settings for this machine.\n" in run("mnist-serve", "--help").stdout


def test_help_says_in_one_line_that_it_cannot_write():
    done = shell(f"{BIN}/mnist-predict --help >/dev/full")
    assert (done.returncode, done.stderr) == (1, "Error: cannot write the output: No space left on device\n")


# With workers, the supervisor writes the line, as a single process does. The workers only matter if they inherit closed
# streams.
@pytest.mark.parametrize(
    ("workers", "redirections", "reason"),
    [
        (1, ">/dev/full", "No space left on device"),
        (1, ">&-", "it is closed"),
        (1, "> >(true)", "Broken pipe"),
        (1, ">/dev/full 2>&1", None),
        (1, "<&- >&- 2>&-", None),
        (2, ">&-", "it is closed"),
        (2, "<&- >&- 2>&-", None),
    ],
)
def test_service_runs_without_standard_output(workers, redirections, reason):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    # The reader of the pipe in the third case has gone when the service writes.
    line = f"exec {BIN}/mnist-serve --port {port} --workers {workers} --log-level error {redirections}"
    process = subprocess.Popen(["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def responds():
        try:
            return httpx.get(f"{url}/v2/health/ready", timeout=60).status_code == 200
        except httpx.TransportError:
            return process.poll() is not None

    until(responds)
    # A worker can respond before the supervisor has written the warning. So read the warning before the signal.
    first = process.stderr.readline() if reason else ""
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0
    expected = [f"WARNING: cannot write to standard output ({reason}): the service runs on {url}"] if reason else []
    assert (first + rest).splitlines() == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_service_needs_no_temporary_folder(workers, digits):
    environment = os.environ | {"TMPDIR": "/proc", "HOME": "/proc"}
    code = "import tempfile; tempfile.gettempdir = tempfile.mkdtemp = None; from serving.cli import serve; serve()"
    line = [sys.executable, "-c", code, "--port", "0", "--workers", str(workers)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment)
    assert "mnist version" in process.stdout.readline()
    address = process.stdout.readline().split()[0]
    response = httpx.post(
        f"{address}/predict", content=digits[0].tobytes(), headers={"content-type": "application/octet-stream"}
    )
    assert response.status_code == 200
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0
