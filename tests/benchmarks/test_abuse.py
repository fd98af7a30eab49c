"""Requests that mean harm, over raw sockets: no fault, no hang, no crash, and the others are answered."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.hostile import assault
from tests.support import service


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_requests_do_no_harm(digits, truth, seed):
    with service() as (url, process):
        address = urlsplit(url)
        # Images that the model reads right, as it is to go on doing.
        known = slice(0, 40)
        outcome = asyncio.run(assault(address.hostname, address.port, digits[known], truth[known], 1500, seed=seed))
        assert not outcome.failures
        assert not outcome.wrong
        assert outcome.right > 0
        # Nearly everything was refused with a reason; a fuzzer that only ever sends good requests proves nothing.
        assert outcome.statuses["400"] > 500
        assert process.poll() is None
        assert httpx.get(f"{url}/v2/health/ready", timeout=60).status_code == 200
        metrics = httpx.get(f"{url}/metrics", timeout=60).text
        assert 'status="5' not in metrics
        # Nothing that was begun is left over but this request itself.
        assert "mnist_http_requests_in_flight 1.0" in metrics
