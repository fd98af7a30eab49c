"""Hostile requests over real connections: the service does not fail, and valid requests get the right prediction."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.abuse import attack
from tests.support import service


@pytest.mark.parametrize("seed", [1, 2])
def test_service_survives_hostile_requests(digits, truth, seed):
    with service() as (url, process):
        address = urlsplit(url)
        # The model predicts the digits of these images correctly.
        known = slice(0, 40)
        outcome = asyncio.run(attack(address.hostname, address.port, digits[known], truth[known], 1500, seed=seed))
        assert not outcome.failures
        assert not outcome.wrong
        assert outcome.right > 0
        # Requests that are all valid would prove nothing: the service must have rejected many with a reason.
        assert outcome.statuses["400"] > 500
        assert process.poll() is None
        assert httpx.get(f"{url}/v2/health/ready", timeout=60).status_code == 200
        metrics = httpx.get(f"{url}/metrics", timeout=60).text
        assert 'status="5' not in metrics
        # Only this request is in flight.
        assert "mnist_http_requests_in_flight 1.0" in metrics
