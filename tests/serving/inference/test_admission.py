"""The limit of predictions in flight, and the routes that it applies to."""

from __future__ import annotations

import pytest

from serving.errors import OverloadedError
from serving.inference.admission import Admission, Held, limited_route
from serving.inference.threads import INLINE_BYTES


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/predict", "/predict"),
        ("/predict/", None),
        ("/v2/models/mnist/infer", "/v2/models/{name}/infer"),
        ("/v2/models/mnist/infer/", None),
        ("/v2/models/mnist/versions/3/infer", "/v2/models/{name}/versions/{version}/infer"),
        ("/", None),
        ("/predictions", None),
        ("/metrics", None),
        ("/v2/health/ready", None),
        ("/v2/models/mnist", None),
        ("/v2/models/mnist/ready", None),
        ("/v2/models/infer", None),
        ("/v2/repository/index", None),
    ],
)
def test_limit_applies_to_predictions_only(path, route):
    assert limited_route(path) == route


def test_limit_counts_predictions_until_they_leave():
    admission = Admission(2)
    assert [admission.enter() for _ in range(3)] == [True, True, False]
    assert admission.rejects("/predict")
    assert not admission.rejects("/v2/health/ready")
    admission.leave()
    assert not admission.rejects("/predict")
    assert admission.enter()


def test_large_requests_leave_half_of_the_places_to_small_ones():
    admission = Admission(4)
    large = INLINE_BYTES + 1
    assert [admission.enter(large) for _ in range(3)] == [True, True, False]
    assert admission.rejects("/predict", large)
    assert not admission.rejects("/predict", INLINE_BYTES)
    assert [admission.enter() for _ in range(3)] == [True, True, False]
    admission.leave(large)
    assert admission.enter(large)
    assert Admission(1).enter(large)


def test_held_bytes_are_counted_until_the_end_of_the_work():
    held = Held(100_000)
    with held.hold(60_000):
        assert held.bytes == 60_000
        with pytest.raises(OverloadedError), held.hold(60_000):
            pytest.fail("the work must not begin")
        with held.hold(INLINE_BYTES):
            assert held.bytes == 60_000
        assert held.bytes == 60_000
    assert held.bytes == 0
