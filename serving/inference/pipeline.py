"""One request's way through a model: decode, queue, infer, encode, in time or not at all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from serving.api.http import AnyRequest, header
from serving.errors import DeadlineExceededError, InputError, OverloadedError
from serving.inference.service import service_of
from serving.models.classifier import Images, ModelOutput
from serving.models.repository import Model
from serving.telemetry.metrics import Timing

T = TypeVar("T")


def check_admitted(request: AnyRequest) -> None:
    """Refuse a request that came when too many others waited.

    Raises:
        OverloadedError: it did.
    """
    if "mnist.refused" in request.scope:
        raise OverloadedError


def deadline_of(request: AnyRequest, timeout: object = None) -> float:
    """The moment, by ``time.monotonic``, after which the caller has no use for an answer.

    Args:
        timeout: microseconds from the request's arrival; 0 or None is none. The header ``X-Request-Deadline``
            says the same as a moment, in seconds since 1970.
    """
    deadline = math.inf
    now = time.monotonic()
    if timeout not in (None, 0, "", "0"):
        arrival: float = request.scope.get("mnist.arrival", now)  # type: ignore[assignment]
        deadline = arrival + _number("timeout", timeout) / 1e6
    moment = header(request, b"x-request-deadline")
    if moment is not None:
        deadline = min(deadline, now + _number("X-Request-Deadline", moment) - time.time())
    return deadline


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError
        number = float(value)
        if not 0 <= number < math.inf:
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name} is {value!r}; it is a number from 0 on") from error
    return number


async def infer(
    request: AnyRequest,
    model: Model,
    images: Images,
    timing: Timing,
    deadline: float,
    encode: Callable[[ModelOutput], T],
) -> T:
    """What ``encode`` makes of the answers for uint8 ``images [N, 28, 28]``.

    Raises:
        DeadlineExceededError: the deadline passed before the work was begun.
    """
    service = service_of(request)

    def finish(answers: ModelOutput) -> T:
        answer = encode(answers)
        timing.end("encode")
        service.metrics.predicted(model, images, answers.probabilities, timing.seconds)
        return answer

    def work() -> T:
        timing.end("queue")
        if time.monotonic() > deadline:
            raise DeadlineExceededError
        answers = model.classifier.classify(images)
        timing.end("infer")
        service.metrics.ran(model, timing.seconds["infer"])
        return finish(answers)

    try:
        with model:
            # For less, the change of thread would cost as much as the work.
            if len(images) > 2 * model.at_once:
                return await service.do(work, large=True)
            return finish(await service.batches.classify(model, images, timing, deadline))
    except DeadlineExceededError:
        raise
    except Exception:
        service.metrics.failed(model)
        raise
