"""Background tasks outlive failures, and a hung disk stops neither the requests nor the end of the process."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

from serving.api.app import create_service
from serving.inference.threads import INLINE_BYTES
from serving.models import disk
from serving.service import background
from serving.settings import Settings
from serving.telemetry.recorder import Recorder
from tests.serving.models import graphs
from tests.serving.models.bundles import publish, replace
from tests.support import PIXELS, application, service, until

ADMIN = {"x-api-key": "key"}


def sample(client, name):
    """Return the value of a series in the metrics, 0 if it is not there."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_scan_that_fails_is_logged_once_counted_and_repeated(monkeypatch, caplog):
    with application(poll=0.01) as client:
        scan = client.app.state.service.repository.scan
        with monkeypatch.context() as patch:
            patch.setattr(client.app.state.service.repository, "scan", lambda: 1 / 0)
            until(lambda: sample(client, 'mnist_background_failures_total{task="scan"}') >= 3)
        assert client.app.state.service.repository.scan == scan
        failed, scanned = time.time(), "mnist_repository_scan_timestamp_seconds"
        until(lambda: sample(client, scanned) > failed)
        assert caplog.text.count("ZeroDivisionError") == 1
        assert caplog.text.count("'scan' failed; it is tried again") == 1


def test_count_that_fails_is_logged_counted_and_repeated(monkeypatch, caplog):
    count = Recorder.count
    monkeypatch.setattr("serving.api.app.COUNT_INTERVAL", 0.01)
    with application() as client:
        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "count", lambda _: 1 / 0)
            until(lambda: "'count' failed" in caplog.text)
        counted = threading.Event()
        monkeypatch.setattr(Recorder, "count", lambda self: (count(self), counted.set()))
        assert counted.wait(60)
        assert sample(client, 'mnist_background_failures_total{task="count"}') >= 1


def test_last_count_that_fails_is_not_said_to_be_tried_again(monkeypatch, caplog):
    monkeypatch.setattr("serving.api.app.COUNT_INTERVAL", 600)
    with application():
        monkeypatch.setattr(Recorder, "count", lambda _: 1 / 0)
    assert caplog.text.count("'count' failed") == 1
    assert "it is tried again" not in caplog.text


@pytest.fixture
def hang(monkeypatch):
    """Return a function after whose call every scan waits until the test ends."""
    begun, ended = threading.Event(), threading.Event()
    names = disk.names

    def wait(folder):
        begun.set()
        ended.wait(60)
        return names(folder)

    def hang():
        monkeypatch.setattr(disk, "names", wait)
        assert begun.wait(60)

    yield hang
    ended.set()


def test_requests_and_shutdown_do_not_wait_for_a_hung_disk(hang, monkeypatch):
    monkeypatch.setattr(background, "LOCK_SECONDS", 0.05)
    with application(poll=0.01, admin_keys="key") as client:
        hang()
        threads = threading.active_count()
        assert client.get("/v2/models/letters").status_code == 404
        assert client.post("/predict?version=9", content=bytes(784), headers=PIXELS).status_code == 404
        assert client.post("/predict", content=bytes(784), headers=PIXELS).status_code == 200
        assert client.get("/v2/health/ready").status_code == 200
        for _ in range(40):  # More than the threads of the pool that asyncio uses by default.
            assert client.post("/v2/repository/index").status_code == 200
        for action in ("load", "unload"):
            response = client.post(f"/v2/repository/models/mnist/{action}", headers=ADMIN)
            assert response.status_code == 503
            assert "has not ended" in response.json()["error"]
        until(lambda: threading.active_count() <= threads)
        begin = time.monotonic()
    assert time.monotonic() - begin < 20


def test_stop_iteration_of_background_work_reaches_its_caller():
    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(asyncio.wait_for(background.on_own_thread(lambda: next(iter(()))), 60))


@pytest.mark.parametrize("kind", ["report", "storing"])
def test_work_that_is_done_one_after_another_stays_so_when_its_callers_are_cancelled(kind):
    begun, release = [], threading.Event()

    def work():
        begun.append(threading.current_thread())
        assert release.wait(60)

    async def steps():
        service = create_service(Settings(), ())
        do = service.report if kind == "report" else lambda work: service.storing.do(work, time.monotonic() + 60)
        calls = []
        for _ in range(20):
            calls.append(asyncio.create_task(do(work)))
            while not begun:
                await asyncio.sleep(0)
            for _ in range(5):
                await asyncio.sleep(0)
            calls[-1].cancel()
        waiting = asyncio.create_task(do(lambda: len(begun)))
        await asyncio.wait(calls[1:])
        assert not calls[0].done()
        release.set()
        assert await waiting == 1
        await asyncio.wait(calls)
        assert all(call.cancelled() for call in calls)

    asyncio.run(steps())


def test_process_ends_while_a_scan_hangs():
    program = """if True:
        import sys, time
        from serving.models import disk
        names, calls = disk.names, []
        def hang(folder):
            calls.append(folder)
            if len(calls) > 1:
                print("hangs", flush=True)
                time.sleep(1000)
            return names(folder)
        disk.names = hang
        from serving.cli import serve
        sys.exit(serve(["--model", "mnist", "--port", "0", "--poll", "0.01", "--drain", "0"]))
    """
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert any("hangs" in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert "Traceback" not in process.stderr.read()


def test_process_ends_cleanly_while_a_model_that_never_ends_is_verified(models):
    """onnxruntime aborts a process that ends while a thread runs a session."""
    with (
        service("--repository", models, "--poll", "0.02", "--drain", "0") as (url, process),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        publish(models, 2, damage=lambda folder: replace(folder, "model.onnx", graphs.endless_loop()))
        name = "mnist_repository_scan_timestamp_seconds"

        def is_verifying():
            before = sample(client, name)
            time.sleep(0.5)
            return sample(client, name) == before

        until(is_verifying)
        assert client.post("/predict", content=bytes(784), headers=PIXELS).json()["model"]["version"] == "1"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert "terminate" not in process.stderr.read()


# The routes of the model repository.


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{}", b"null", b'{"parameters": {}}', b'{"parameters": null}', b'{"parameters": {"config": null}}',
     b'{"parameters": {"unload_dependents": true}}'],
)  # fmt: skip
def test_load_without_parameters_loads(body):
    with application(admin_keys="key", poll=0.0) as client:
        response = client.post("/v2/repository/models/mnist/load", content=body, headers=ADMIN)
        assert (response.status_code, response.json()) == (200, {})


@pytest.mark.parametrize("name", ["config", "files", "file:1/model.onnx"])
@pytest.mark.parametrize("value", ['"{}"', "{}", '""', "0"])
def test_load_with_a_configuration_or_files_of_the_caller_is_rejected(name, value):
    with application(admin_keys="key", poll=0.0) as client:
        body = f'{{"parameters": {{"{name}": {value}}}}}'
        response = client.post("/v2/repository/models/mnist/load", content=body, headers=ADMIN)
        assert response.status_code == 400
        assert name in response.json()["error"]
        assert "publish a new version" in response.json()["error"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"3", b"\xff", b'{"parameters": []}', b"[" * 10_000, b'"\\ud800"'])
def test_load_with_a_body_that_is_not_a_json_object_is_rejected(body):
    with application(admin_keys="key", poll=0.0) as client:
        response = client.post("/v2/repository/models/mnist/load", content=body, headers=ADMIN)
        assert response.status_code == 400
        assert client.post("/v2/repository/models/mnist/load", content=body).status_code == 401


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/repository/models/mnist/load"])
def test_large_body_of_a_route_of_the_repository_is_not_parsed(path):
    with application(admin_keys="key", poll=0.0) as client:
        assert client.post(path, content=b" " * INLINE_BYTES, headers=ADMIN).status_code == 200
        assert client.post(path, content=b" " * (INLINE_BYTES + 1), headers=ADMIN).status_code == 413


def test_odd_name_of_a_model_is_not_found():
    with service("--admin-keys", "key") as (url, _), httpx.Client(base_url=url, headers=ADMIN, timeout=60) as client:
        for name in ("%00", "mnist%00", "%0a", "mnist%0A", "%ff", "%ed%a0%80", "a" * 5000, "%5c", "CON", "*", "%25"):
            for action in ("load", "unload"):
                response = client.post(f"/v2/repository/models/{name}/{action}")
                assert response.status_code == 404, (name, action, response.text)
            assert client.get(f"/v2/models/{name}").status_code == 404
            assert client.get(f"/v2/models/mnist/versions/{name}").status_code == 404
