"""mnist-serve as a process: start, health, page, schema, stop, and mistakes of the operator."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from serving.settings import RELEASE
from tests.support import PIXELS, ROOT, service


@pytest.fixture(scope="module")
def url():
    with service() as (url, _):
        yield url


def test_picture_of_a_seven_is_recognised(url):
    picture = (ROOT / "tests" / "seven.png").read_bytes()
    response = httpx.post(f"{url}/predict", content=picture, headers={"content-type": "image/png"})
    assert response.json()["predictions"][0]["digit"] == 7


def test_service_is_live_and_ready(url):
    assert httpx.get(f"{url}/v2/health/live").json() == {"live": True}
    assert httpx.get(f"{url}/v2/health/ready").json() == {"ready": True}


def test_page_loads_files_of_the_service_only(url):
    page = httpx.get(url)
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    for file in ("style.css", "page.js"):
        assert file in page.text
        assert httpx.get(f"{url}/{file}").status_code == 200


def test_unchanged_page_is_not_sent_again(url):
    first = httpx.get(url)
    again = httpx.get(url, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.head(url).status_code == 200


@pytest.mark.parametrize("path", ["/../settings.py", "/%2e%2e/settings.py", "/%00", "/a%00b", "/%ff", "/" + "x" * 5000])
def test_path_outside_the_page_files_is_not_found(url, path):
    assert httpx.get(url + path).status_code == 404


def test_schema_lists_routes_and_kinds_of_body(url):
    schema = httpx.get(f"{url}/schema").json()
    assert set(schema["paths"]) >= {"/predict", "/v2/health/live", "/v2/health/ready"}
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(body) >= {"image/png", "multipart/form-data", "application/octet-stream", "application/json"}
    assert "predictions" in json.dumps(schema["components"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_service_cleanly(number):
    with service() as (url, process):
        httpx.get(f"{url}/v2/health/live").raise_for_status()
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        assert "Traceback" not in process.stderr.read()


def test_clients_at_the_same_time_get_their_own_predictions(url, digits, truth):
    def predict(i):
        response = httpx.post(f"{url}/predict", content=digits[i].tobytes(), headers=PIXELS)
        return response.json()["predictions"][0]["digit"]

    with ThreadPoolExecutor(8) as pool:
        predicted = list(pool.map(predict, range(64)))
    assert predicted == truth[:64].tolist()


def copy_of_release(folder):
    shutil.copytree(RELEASE, folder / "models")
    return folder / "models"


def test_altered_bundle_is_not_served(tmp_path, run):
    models = copy_of_release(tmp_path)
    onnx = models / "mnist" / "1" / "model.onnx"
    content = bytearray(onnx.read_bytes())
    content[len(content) // 2] ^= 1
    onnx.write_bytes(content)
    failed = run("mnist-serve", "--repository", models)
    assert failed.returncode == 1
    assert "model.onnx was altered" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_newest_version_is_served(tmp_path, run):
    models = copy_of_release(tmp_path)
    manifest = json.loads((models / "mnist" / "1" / "manifest.json").read_text())
    shutil.copytree(models / "mnist" / "1", models / "mnist" / "10")
    (models / "mnist" / "10" / "manifest.json").write_text(json.dumps(manifest | {"version": 10}))
    (models / "mnist" / ".export-half").mkdir()
    with service("--repository", models) as (url, _):
        response = httpx.post(f"{url}/predict", content=bytes(784), headers=PIXELS)
        assert response.json()["model"]["version"] == "10"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--port", "70000"], 2, "--port 70000"),
        (["--max-batch", "0"], 2, "--max-batch 0"),
        (["--repository", "nowhere"], 1, "nowhere does not exist"),
        (["--model", "letters"], 1, "'letters'"),
        (["--host", "nowhere.invalid"], 1, "cannot listen on nowhere.invalid"),
    ],
)
def test_mistake_of_the_operator_is_reported_without_a_traceback(run, arguments, status, message):
    failed = run("mnist-serve", *arguments)
    assert failed.returncode == status
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr


def test_port_in_use_is_reported(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        failed = run("mnist-serve", "--port", taken.getsockname()[1])
    assert failed.returncode == 1
    assert "--port" in failed.stderr


def test_settings_come_from_the_environment(run, monkeypatch):
    monkeypatch.setenv("MNIST_MODEL", "letters")
    assert "'letters'" in run("mnist-serve").stderr
    monkeypatch.setenv("MNIST_PORT", "x")
    assert run("mnist-serve").returncode == 2
