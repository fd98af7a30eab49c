"""Workers that die, hang, stop or cannot start, and models and metrics of all workers, with real processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from serving.errors import WorkerError
from serving.server import supervisor
from serving.server.supervisor import Supervisor, Worker
from serving.settings import Settings
from serving.telemetry.samples import NOW, empty, sample_key, total
from serving.telemetry.windows import Windows
from tests.serving.models.bundles import change_manifest, reference
from tests.serving.server.clients import children, constant_load, get, workers_of
from tests.support import BIN, PIXELS, service, until

ADMIN = {"x-api-key": "key"}


def statuses(url, path="/v2/health/ready", number=8):
    """The statuses of requests on new connections, so that every worker gets some."""
    return {get(f"{url}{path}").status_code for _ in range(number)}


def predictions(url, number=20, **headers):
    """The statuses of predictions on new connections."""
    request = {"content": bytes(784), "headers": PIXELS | headers, "timeout": 60}
    return {httpx.post(f"{url}/predict", **request).status_code for _ in range(number)}


def sample(url, name):
    for line in get(f"{url}/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    return None


def replaced(process, victim):
    """Wait until another worker has taken the place of ``victim``."""
    until(lambda: victim not in workers_of(process))
    return workers_of(process)


def alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def is_refused(address):
    """Whether nothing listens at this address, so that the connection of a new client is refused."""
    try:
        socket.create_connection(address, timeout=60).close()
    except ConnectionRefusedError:
        return True
    return False


def unload(url, name="mnist"):
    return httpx.post(f"{url}/v2/repository/models/{name}/unload", headers=ADMIN, timeout=60)


def load(url):
    return httpx.post(f"{url}/v2/repository/models/mnist/load", headers=ADMIN, timeout=60)


@pytest.fixture(scope="module")
def pair():
    """A service with two workers. Each test leaves them as they were."""
    with service("--workers", 2, "--poll", 0, "--grace", 1, "--admin-keys", "key") as (url, process):
        until(lambda: sample(url, 'mnist_model_loaded{model="mnist",version="1"}') == 2)
        yield url, process


# Loading and unloading


def test_unload_responds_when_no_worker_answers_any_more(pair):
    url, process = pair
    for _ in range(3):
        assert unload(url).status_code == 200
        assert predictions(url) == {503}
        assert load(url).status_code == 200
        assert predictions(url) == {200}
    assert unload(url, "none").status_code == 404
    assert process.poll() is None


def test_unload_is_an_error_if_a_worker_does_not_confirm_it(pair):
    url, process = pair
    stopped = workers_of(process)[0]
    os.kill(stopped, signal.SIGSTOP)
    response = unload(url)
    assert response.status_code == 503
    assert f"worker {stopped}: it has not confirmed" in response.text
    os.kill(stopped, signal.SIGCONT)
    until(lambda: predictions(url) == {503})
    assert load(url).status_code == 200


# Deaths


def test_death_of_a_worker_is_logged_and_counted_and_its_counters_and_windows_remain(models):
    change_manifest(models / "mnist" / "1", reference=reference())
    with service("--workers", 2, "--repository", models) as (url, process):
        until(lambda: statuses(url) == {200})
        assert sample(url, "mnist_worker_deaths_total") == 0
        assert predictions(url, 40) == {200}
        count = 'mnist_batch_images_count{model="mnist",version="1"}'
        until(lambda: sample(url, count) == 40)
        windows = [f'mnist_drift_images{{model="mnist",version="1",window="{name}"}}' for name in ("1h", "1d")]
        victims = workers_of(process)
        for number, victim in enumerate(victims, start=1):
            os.kill(victim, signal.SIGKILL)
            replaced(process, victim)
            assert [sample(url, name) for name in (count, *windows)] == [40, 40, 40]
            assert sample(url, "mnist_worker_deaths_total") == number
        # The gauges of dead workers are gone.
        until(lambda: sample(url, 'mnist_model_loaded{model="mnist",version="1"}') == 2)
        process.terminate()
        log = process.stderr.read()
        assert all(f"worker {victim} was killed by SIGKILL" in log for victim in victims)


KEYS = b"first\nsecond,with comma\n"


@contextmanager
def service_with_keys_from_a_pipe(workers, **options):
    reading, writing = os.pipe()
    os.write(writing, KEYS)
    os.close(writing)
    arguments = ("--workers", workers, "--predict-keys-file", f"/dev/fd/{reading}", "--admin-keys", "key")
    with service(*arguments, pass_fds=[reading], **options) as (url, process):
        os.close(reading)
        yield url, process


@pytest.fixture(scope="module")
def successors(tmp_path_factory):
    """A service whose two workers were killed and replaced.

    Before, it read its keys from a pipe, its working directory was removed, and its model was unloaded. Yield the URL,
    the statuses of predictions before the model was loaded again, and the temporary files that the unloading has left.
    """
    folder, temporary = tmp_path_factory.mktemp("folder"), tmp_path_factory.mktemp("temporary")
    environment = os.environ | {"TMPDIR": str(temporary)}
    with service_with_keys_from_a_pipe(2, cwd=folder, env=environment) as (url, process):
        shutil.rmtree(folder)
        assert unload(url).status_code == 200
        left = list(temporary.iterdir())
        for victim in workers_of(process):
            os.kill(victim, signal.SIGKILL)
            replaced(process, victim)
        unloaded = predictions(url, **ADMIN)
        assert load(url).status_code == 200
        yield url, unloaded, left


def test_unloaded_model_stays_unloaded_in_a_new_worker_and_without_temporary_files(successors):
    _, unloaded, left = successors
    assert left == []
    assert unloaded == {503}


def test_worker_is_replaced_when_the_working_directory_is_gone(successors):
    url, _, _ = successors
    until(lambda: sample(url, 'mnist_model_loaded{model="mnist",version="1"}') == 2)
    assert predictions(url, **ADMIN) == {200}


def check_keys(url):
    assert predictions(url, 10, **{"x-api-key": "second,with comma"}) == {200}
    assert predictions(url, 10, **{"x-api-key": "second"}) == {401}


def test_keys_from_a_pipe_hold_in_the_only_process():
    with service_with_keys_from_a_pipe(1) as (url, _):
        check_keys(url)


def test_keys_from_a_pipe_hold_in_new_workers(successors):
    check_keys(successors[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_service_that_cannot_start_ends_with_one_line(workers, models, run):
    (models / "mnist" / "1" / "model.onnx").write_bytes(b"")
    done = run("mnist-serve", "--workers", workers, "--port", 0, "--repository", models, "--log-level", "error")
    assert (done.returncode, done.stdout) == (1, "")
    rejected, error = done.stderr.splitlines()
    assert '"rejected model mnist version 1' in rejected
    assert error.startswith("Error: ")
    done = run("mnist-serve", "--workers", workers, "--port", 0, "--admin-keys-file", "/none")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--admin-keys-file /none: cannot be read" in done.stderr.splitlines()[-1]


def test_service_ends_when_a_worker_cannot_be_replaced(models, monkeypatch):
    """This test runs the supervisor itself, without its delays."""
    monkeypatch.setattr(supervisor, "MAX_DELAY", 0)
    settings = Settings(port=0, workers=2, repository=models, drain=0)

    async def steps():
        supervising = Supervisor(settings, [listener], lambda _: None)
        running = asyncio.create_task(supervising.run())
        while sum(worker.is_ready for worker in supervising._workers) < 2:
            await asyncio.sleep(0.05)
        (models / "mnist" / "1" / "model.onnx").unlink()
        supervising._workers[0].process.kill()
        await running

    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(WorkerError, match="onnx"):
        asyncio.run(asyncio.wait_for(steps(), 120))


def test_worker_that_hangs_is_replaced(monkeypatch):
    monkeypatch.setattr(supervisor, "RESPONSE_TIMEOUT", 2)

    async def steps():
        supervising = Supervisor(Settings(port=0, workers=1, drain=0), [listener], lambda _: None)
        running = asyncio.create_task(supervising.run())

        def is_ready(worker=None):
            return supervising._workers and supervising._workers[0].is_ready and supervising._workers[0] is not worker

        while not is_ready():
            await asyncio.sleep(0.05)
        hung = supervising._workers[0]
        os.kill(hung.process.pid, signal.SIGSTOP)
        while not is_ready(hung):
            await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        await running
        return hung.process.returncode

    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert asyncio.run(asyncio.wait_for(steps(), 120)) == -signal.SIGKILL


def test_worker_that_has_ended_does_not_keep_the_others_from_being_killed():
    async def steps():
        supervising = Supervisor(Settings(), [], lambda _: None)
        for code in ("pass", "import time; time.sleep(600)"):
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
            supervising._workers.append(Worker(process, channel=None))
        ended, running = (worker.process for worker in supervising._workers)
        await ended.wait()
        try:
            supervising._kill()
            return await asyncio.wait_for(running.wait(), 60)
        finally:
            with suppress(ProcessLookupError):
                running.kill()

    assert asyncio.run(steps()) == -signal.SIGKILL


def test_counters_of_a_dropped_version_stay_whole_until_all_workers_have_forgotten_it():
    """If each worker took its part away, the sum would fall, which is a reset of the counter to Prometheus."""
    supervising = Supervisor(Settings(), [], lambda _: None)
    workers = [Worker(process=None, channel=None) for _ in range(2)]
    supervising._workers += workers
    image = "mnist_batch_images_sum", {"model": "mnist", "version": "1"}
    last = "mnist_last_prediction_timestamp_seconds", {"model": "mnist", "version": "1"}

    def report(worker, versions, images=0):
        snapshot = empty()
        for version in versions:
            labels = {"model": "mnist", "version": version}
            snapshot["gauges"][sample_key("mnist_model_loaded", "mnist_model_loaded", labels)] = 1
        if "1" in versions:
            snapshot["counters"][sample_key("mnist_batch_images", *image)] = images
            snapshot["gauges"][sample_key(last[0], *last)] = 5
        snapshot["bins"] = {NOW: {f"mnist/{version}/b": [images] for version in versions}}
        if images:  # A counter of no version that is missing once, such as one that cannot be read, is no past.
            snapshot["counters"][sample_key("process_cpu_seconds", "process_cpu_seconds_total", {})] = 1
        supervising._handle(worker, ["report", snapshot])
        sums = total([supervising._past, *(each.snapshot for each in supervising._workers)])
        counted = [value for key, value in sums["counters"].items() if "process" not in key]
        return counted, sums["gauges"].get(sample_key(last[0], *last)), sums["bins"][NOW].get("mnist/1/b")

    assert report(workers[0], ["1", "2"], 3) == ([3], 5, [3])
    supervising._windows = Windows(iter(range(0, 10**6, 3600)).__next__)
    supervising._windows.note(supervising._bins)
    assert report(workers[1], ["1", "2"], 4) == ([7], 5, [7])
    assert report(workers[0], ["2"]) == ([7], 5, [7])
    assert report(workers[0], ["2", "1"], 1) == ([8], 5, [8])  # It comes back.
    assert report(workers[0], ["2", "3"]) == ([8], 5, [8])
    assert report(workers[1], ["2", "3"]) == ([], None, None)
    assert [*supervising._past["counters"].values(), *supervising._past["bins"][NOW]] == []
    kept = {key for notes in supervising._windows._notes.values() for _, counts in notes for key in counts}
    assert kept == {"mnist/2/b"}


# The end


def test_sigterm_makes_all_workers_not_ready_while_one_is_stopped():
    with service("--workers", 3, "--drain", 2, "--grace", 1) as (url, process):
        until(lambda: sample(url, 'mnist_model_loaded{model="mnist",version="1"}') == 3)
        stopped = workers_of(process, 3)[0]
        os.kill(stopped, signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        until(lambda: get(f"{url}/v2/health/ready").status_code == 503)
        with suppress(httpx.TransportError):  # The drain time may be over.
            assert statuses(url, number=5) == {503}
        assert process.wait(timeout=30) == 0
        assert not alive(stopped)


def test_new_connections_are_refused_while_requests_in_flight_are_finished():
    # Otherwise such a client would wait until the whole service has ended, and then see its connection reset.
    with service("--workers", 2, "--drain", 0) as (url, process), socket.socket() as client:
        address = (httpx.URL(url).host, httpx.URL(url).port)
        client.connect(address)
        client.sendall(b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 784\r\n")
        client.sendall(b"content-type: application/octet-stream\r\nexpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        process.send_signal(signal.SIGTERM)
        until(lambda: is_refused(address))
        assert process.poll() is None
        client.sendall(bytes(784))
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_thread_that_keeps_working_does_not_delay_shutdown(workers, tmp_path):
    # Every process of this service has a thread that works for an hour.
    code = "import threading, time; threading.Thread(target=time.sleep, args=(3600,)).start()"
    (tmp_path / "sitecustomize.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    with service("--workers", workers, "--drain", 0, env=environment) as (url, process):
        until(lambda: statuses(url) == {200})
        workers = children(process.pid)
        process.send_signal(signal.SIGTERM)
        until(lambda: not any(map(alive, workers)))
        assert workers or process.wait(timeout=60) == 0
        process.kill()  # The supervisor has such a thread too, but only in this test.


def test_worker_that_is_stopped_ends_after_its_supervisor():
    with service("--workers", 2) as (_, process):
        workers = workers_of(process)
        os.kill(workers[0], signal.SIGSTOP)
        process.kill()
        process.wait()
        os.kill(workers[0], signal.SIGCONT)
        until(lambda: not any(map(alive, workers)))


def test_worker_that_starts_ends_with_its_supervisor():
    line = [BIN / "mnist-serve", "--port", "0", "--workers", "2"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    workers = workers_of(process)
    process.kill()
    until(lambda: not any(map(alive, workers)))
    process.communicate()


def test_ctrl_c_stops_all_workers():
    with service("--workers", 2, "--drain", 60, start_new_session=True) as (_, process):
        workers = workers_of(process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert not any(map(alive, workers))


# Metrics


def test_prometheus_multiproc_dir_is_ignored(tmp_path):
    (tmp_path / "counter_1.db").write_bytes(b"")
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with service("--workers", 2, env=environment) as (url, _), service(env=environment) as (other, _):
        assert predictions(url, 10) == {200}
        until(lambda: sample(url, 'mnist_predictions_total{label="1",model="mnist"}') is not None)
        assert 'mnist_batch_images_count{model="mnist"' not in get(f"{other}/metrics").text
        assert [file.name for file in tmp_path.iterdir()] == ["counter_1.db"]


def test_counters_never_fall_from_one_scrape_to_the_next(pair):
    url, _ = pair
    with constant_load(url):
        counts = [sample(url, 'mnist_inference_seconds_count{model="mnist",version="1"}') or 0 for _ in range(50)]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_metrics_respond_while_another_worker_is_stopped(pair):
    url, process = pair
    stopped = workers_of(process)[0]
    os.kill(stopped, signal.SIGSTOP)
    assert sample(url, 'mnist_model_loaded{model="mnist",version="1"}') == 2
    os.kill(stopped, signal.SIGCONT)
