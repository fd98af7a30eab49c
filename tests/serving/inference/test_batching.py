"""Small requests that wait together go through the model together, and each gets the output that it would get alone."""

from __future__ import annotations

import asyncio
import math
import time

import numpy as np
import pytest

from serving.errors import DeadlineExceededError
from serving.inference.batching import Batches
from serving.models import repository
from serving.settings import RELEASE
from serving.telemetry.recorder import Recorder
from serving.telemetry.timing import Timing

AT_ONCE = 8


class Counted:
    """A classifier that records how many images each run had."""

    def __init__(self, classifier):
        self.classifier = classifier
        self.runs = []

    def classify(self, images):
        self.runs.append(len(images))
        return self.classifier.classify(images)


@pytest.fixture
def model():
    model = repository.load(RELEASE, "mnist")
    model.classifier = Counted(model.classifier)
    model.batch_size = AT_ONCE
    return model


def classify(model, batches, images, deadline=math.inf):
    return batches.classify(model, images, Timing(), deadline)


def test_each_request_gets_its_own_output(model, digits):
    parts = [digits[:1], digits[1:4], digits[4:5], digits[5:6]]

    async def together():
        batches = Batches(Recorder())
        return await asyncio.gather(*(classify(model, batches, part) for part in parts))

    outputs = asyncio.run(together())
    assert model.classifier.runs == [6]
    for part, output in zip(parts, outputs, strict=True):
        for mine, alone in zip(output, model.classifier.classifier.classify(part), strict=True):
            np.testing.assert_allclose(mine, alone, atol=1e-5)


def test_requests_of_different_models_are_not_mixed(model, digits):
    other = repository.load(RELEASE, "mnist")
    other.classifier = Counted(other.classifier)

    async def both():
        batches = Batches(Recorder())
        await asyncio.gather(*(classify(one, batches, digits[:1]) for one in (model, other, model)))

    asyncio.run(both())
    assert (model.classifier.runs, other.classifier.runs) == ([2], [1])


def test_event_loop_has_a_turn_between_two_batches(model, digits):
    async def crowd():
        batches = Batches(Recorder())
        runs = []
        waiting = [classify(model, batches, digits[i : i + 1]) for i in range(3 * AT_ONCE)]

        async def watch_runs():
            while not waiting[-1].done():
                runs.append(len(model.classifier.runs))
                await asyncio.sleep(0)

        await asyncio.gather(watch_runs(), *waiting)
        return runs

    assert asyncio.run(crowd()) == [1, 2]
    assert model.classifier.runs == [AT_ONCE] * 3


def test_responses_go_out_before_the_next_batch_runs(model, digits):
    async def crowd():
        batches = Batches(Recorder())
        runs = []

        async def one(i):
            await classify(model, batches, digits[i : i + 1])
            runs.append(len(model.classifier.runs))

        await asyncio.gather(*(one(i) for i in range(3 * AT_ONCE)))
        return runs

    assert asyncio.run(crowd()) == [1] * AT_ONCE + [2] * AT_ONCE + [3] * AT_ONCE


def test_late_and_cancelled_requests_are_not_run(model, digits):
    async def three():
        batches = Batches(Recorder())
        late = classify(model, batches, digits[:1], time.monotonic() - 1)
        cancelled = classify(model, batches, digits[:1])
        cancelled.cancel()
        output = classify(model, batches, digits[:1], time.monotonic() + 60)
        return await asyncio.gather(late, cancelled, output, return_exceptions=True)

    late, cancelled, output = asyncio.run(three())
    assert isinstance(late, DeadlineExceededError)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert output.logits.argmax() == 7
    assert model.classifier.runs == [1]


def test_failure_reaches_the_whole_batch_and_the_next_batch_still_runs(model, digits):
    class Broken:
        def classify(self, images):
            raise RuntimeError("broken")

    async def fail_then_work():
        batches = Batches(Recorder())
        counted, model.classifier = model.classifier, Broken()
        failed = await asyncio.gather(*(classify(model, batches, digits[:1]) for _ in range(2)), return_exceptions=True)
        model.classifier = counted
        return failed, await classify(model, batches, digits[:1])

    failed, output = asyncio.run(fail_then_work())
    assert [str(error) for error in failed] == ["broken", "broken"]
    assert output.logits.argmax() == 7


def test_batch_that_has_no_memory_fails_and_the_next_batch_still_runs(model, digits, monkeypatch):
    def full(arrays):
        raise MemoryError

    async def fail_then_work():
        batches = Batches(Recorder())
        with monkeypatch.context() as patch:
            patch.setattr(np, "concatenate", full)
            waiting = [classify(model, batches, digits[:1]) for _ in range(AT_ONCE)]
            failed = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)
        return failed, await asyncio.wait_for(classify(model, batches, digits[:1]), 60)

    failed, output = asyncio.run(fail_then_work())
    assert [type(error) for error in failed] == [MemoryError] * AT_ONCE
    assert output.logits.argmax() == 7
