"""Workers and shutdown: real processes, real sockets."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving.server.clients import DIGIT, HEAD, children, connect, get, predict, workers_of
from tests.support import service, until

# Workers


@pytest.fixture(scope="module")
def pair():
    """A service with two workers. Each test leaves it two, but one may still be starting."""
    with service("--workers", 2) as (url, process):
        yield url, process


def until_both_are_ready(url):
    until(lambda: 'mnist_model_loaded{model="mnist",version="1"} 2.0' in get(f"{url}/metrics").text)


def test_workers_share_the_work_and_the_metrics():
    with service("--workers", 2, "--admin-keys", "key") as (url, process):
        until(lambda: len(children(process.pid)) == 2)

        def status_of_prediction(_):
            with httpx.Client(base_url=url) as client:
                return predict(client).status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(status_of_prediction, range(60))) == {200}

        def samples():
            return {
                (sample.name, sample.labels.get("model")): sample.value
                for family in text_string_to_metric_families(get(f"{url}/metrics").text)
                for sample in family.samples
                if "le" not in sample.labels
            }

        # The worker that is not scraped reports its last requests half a second later.
        until(lambda: samples()["mnist_confidence_ratio_count", "mnist"] == 60)
        until(lambda: samples()["mnist_model_loaded", "mnist"] == 2)
        for _ in range(4):
            assert samples()["mnist_confidence_ratio_count", "mnist"] == 60
            assert samples()["mnist_model_loaded", "mnist"] == 2
        [entry] = get(f"{url}/v2/models/mnist/stats").json()["model_stats"]
        assert entry["inference_count"] == 60

        # One worker gets the request, and responds when all workers have done it.
        key = {"x-api-key": "key"}
        assert httpx.post(f"{url}/v2/repository/models/mnist/unload", headers=key).status_code == 200
        assert {get(f"{url}/v2/health/ready").status_code for _ in range(8)} == {503}
        assert httpx.post(f"{url}/v2/repository/models/mnist/load", headers=key).status_code == 200
        assert {get(f"{url}/v2/health/ready").status_code for _ in range(8)} == {200}


def test_killed_worker_is_replaced(pair):
    url, process = pair
    until_both_are_ready(url)
    stop, failures, statuses = threading.Event(), [], []

    def send_predictions():
        while not stop.is_set():
            try:
                with httpx.Client(base_url=url, timeout=30) as client:
                    statuses.append(predict(client).status_code)
            except httpx.TransportError as error:
                failures.append(error)

    threads = [threading.Thread(target=send_predictions) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(statuses) > 50)
    victim = children(process.pid)[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(set(children(process.pid)) - {victim}) == 2)
    before = len(statuses)
    until(lambda: len(statuses) > before + 50)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    # Each of the four clients may have lost one request in the killed worker and one that it had accepted.
    assert len(failures) <= 8


def test_workers_end_with_their_supervisor():
    with service("--workers", 2) as (url, process):
        until(lambda: get(f"{url}/v2/health/ready").status_code == 200)
        workers = children(process.pid)
        process.kill()
        process.wait()
        until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


# Shutdown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("workers", [1, 2])
def test_stop_under_load_loses_no_request(workers, number):
    with service("--workers", workers, "--drain", 2) as (url, process):
        until(lambda: get(f"{url}/v2/health/ready").status_code == 200)
        statuses, stop = [], threading.Event()

        def send_predictions():
            with httpx.Client(base_url=url, timeout=30) as client:
                # A load balancer does the same: it sends requests until the service is not ready.
                while not stop.is_set():
                    statuses.append(predict(client).status_code)

        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(send_predictions) for _ in range(4)]
            try:
                until(lambda: len(statuses) > 50)
                process.send_signal(number)
                until(lambda: get(f"{url}/v2/health/ready").status_code == 503)
                before = len(statuses)
                until(lambda: len(statuses) > before + 8)
            finally:
                stop.set()  # or the pool would wait for ever
            for future in clients:
                future.result()
        assert process.wait(timeout=30) == 0
        assert set(statuses) == {200}


def test_request_in_flight_gets_its_response_after_sigterm():
    with service("--drain", "0") as (url, process), connect(url) as connection:
        connection.sendall(HEAD + DIGIT[:100])
        until(lambda: "mnist_http_requests_in_flight 2.0" in get(f"{url}/metrics").text)
        process.send_signal(signal.SIGTERM)
        until(lambda: not listens(url))
        connection.sendall(DIGIT[100:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_request_that_takes_longer_than_grace_gets_503(workers):
    with service("--workers", workers, "--drain", 0, "--grace", 1) as (url, process):
        until(lambda: get(f"{url}/v2/health/ready").status_code == 200)
        with connect(url) as connection:
            connection.sendall(HEAD + DIGIT[:100])
            until(lambda: "mnist_http_requests_in_flight 2.0" in get(f"{url}/metrics").text)
            process.send_signal(signal.SIGTERM)
            response = connection.recv(65536)
        _, log = process.communicate(timeout=30)
    assert response.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in response
    assert process.returncode == 0
    assert "Traceback" not in log


@pytest.mark.parametrize("workers", [1, 2])
def test_service_under_nohup_goes_on_when_the_terminal_is_closed(workers):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with service("--workers", workers, preexec_fn=ignore) as (url, process):
        for pid in (process.pid, *children(process.pid)):
            os.kill(pid, signal.SIGHUP)
        for _ in range(8):
            assert get(f"{url}/v2/health/ready").status_code == 200


def test_hangup_of_a_worker_does_not_end_it(pair):
    url, process = pair
    until_both_are_ready(url)
    workers = workers_of(process)
    for pid in workers:
        os.kill(pid, signal.SIGHUP)
    for _ in range(8):
        assert get(f"{url}/v2/health/ready").status_code == 200
    assert children(process.pid) == workers


def listens(url):
    try:
        connect(url).close()
    except OSError:
        return False
    return True
