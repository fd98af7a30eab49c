"""Measure a bundle on the test set, and on test images drawn, written or damaged in other ways. The card shows it.

Every image takes the path of the service: its picture code, its ONNX file, and its judgement. Nothing is chosen by
these results.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from export.timing import microseconds_per_image
from serving.contract import AS_IS, Images, ModelOutput, Preparation, Reasons
from serving.models.classifier import IMAGES_PER_RUN
from serving.models.model import Model
from serving.models.results import ClassResult, Latency, Mistake, SetResult
from serving.pictures.prepare import prepare
from training.data.digits import Digits, Splits
from training.evaluate import Evaluation
from training.source import cpu
from training.trust.examples import styled

SEED = 0
# The first test images. With more of them the export would take longer than the conversion of the files.
SUBSET = 500
# The manifest lists at most this many kinds of mistakes.
MOST_MISTAKES = 1000

Tensor = torch.Tensor
Corruption = Callable[[Tensor, torch.Generator], Tensor]


class Results(NamedTuple):
    """What the manifest gets."""

    sets: dict[str, SetResult]
    classes: tuple[ClassResult, ...]
    mistakes: tuple[Mistake, ...]
    latency: Latency | None


class DrawnSet(NamedTuple):
    """Some test images, drawn, written or damaged in another way."""

    name: str
    what: str
    """The way, for people."""
    images: Images
    labels: Tensor
    reasons: Reasons
    """Why the picture code rejects some of them, by index."""


def measure(
    model: Model,
    splits: Splits,
    output: ModelOutput | None = None,
    drawn: Sequence[DrawnSet] | None = None,
    *,
    with_latency: bool = True,
) -> Results:
    """Return the results of a loaded bundle on every set.

    Args:
        output: what the bundle's ONNX file gives for the test images, if it was computed before.
        drawn: the result of :func:`draw_sets`, if it was computed before.
    """
    test = splits.test
    output = output or model.classifier.classify(test.images.numpy())
    sets = {"test": _result("the test set, as 28x28 pixels", model, test.images.numpy(), test.labels, output, {})}
    for name, what, images, labels, reasons in drawn or draw_sets(splits, model.bundle.manifest.prepare):
        sets[name] = _result(what, model, images, labels, model.classifier.classify(images), reasons)
    confusion = Evaluation(torch.from_numpy(output.logits), test.labels).confusion
    return Results(sets, *_by_class(confusion), _latency(model, test.images.numpy()) if with_latency else None)


def _result(
    what: str, model: Model, images: Images, labels: Tensor, output: ModelOutput, reasons: Reasons
) -> SetResult:
    evaluation = Evaluation(torch.from_numpy(output.logits), labels)
    right = (evaluation.predictions == labels).tolist()
    judged = model.judge(images, output, reasons)
    return SetResult(
        what=what,
        images=len(right),
        correct=sum(right),
        accepted=judged.count(None),
        accepted_correct=sum(hit for hit, reason in zip(right, judged, strict=True) if reason is None),
        reasons=dict(Counter(reason for reason in judged if reason is not None)),
        calibration_error=evaluation.calibration_error(),
    )


def draw_sets(splits: Splits, how: Preparation) -> list[DrawnSet]:
    """Return every set except the test set itself. It does not depend on the model.

    Args:
        how: how the service brings a picture to 28x28; see ``serving.pictures.prepare``.
    """
    some = Digits(splits.test.images[:SUBSET], splits.test.labels[:SUBSET])
    return [DrawnSet(name, what, images, some.labels, why) for name, what, images, why in _ways(some, splits, how)]


def _ways(some: Digits, splits: Splits, how: Preparation) -> Iterator[tuple[str, str, Images, Reasons]]:
    count = f"{len(some):,} test images"
    pictures = [prepare(_picture(image), how) for image in some.images.numpy()]
    reasons = {i: picture.reason for i, picture in enumerate(pictures) if picture.reason is not None}
    yield "pictures", f"{count} as PNG pictures, dark on white", np.stack([each.image for each in pictures]), reasons
    if splits.prepare != AS_IS:
        drawn = styled(some, torch.Generator().manual_seed(SEED), splits.labels)
        yield "other styles", f"{count}, bent and in other styles of writing", drawn.numpy(), {}
    for name, (what, corrupt) in CORRUPTIONS.items():
        damaged = corrupt(some.images[:, None].float(), torch.Generator().manual_seed(SEED))
        pixels = damaged[:, 0].clamp(0, 255).round().to(torch.uint8)
        yield name, f"{count} {what}, as 28x28 pixels", pixels.numpy(), {}


def _picture(image: Images) -> bytes:
    """Return a test image as a PNG: five times as large, dark, somewhere on a white sheet."""
    large = Image.fromarray(255 - image).resize((140, 140), Image.Resampling.BICUBIC)
    sheet = Image.new("L", (200, 240), 255)
    sheet.paste(large, (35, 60))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _noisy(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + 50 * torch.randn(images.shape, generator=generator)


def _blurred(images: Tensor, _: torch.Generator) -> Tensor:
    return F.avg_pool2d(F.avg_pool2d(images, 3, 1, 1), 3, 1, 1)


def _faint(images: Tensor, _: torch.Generator) -> Tensor:
    return 0.4 * images


def _turned(images: Tensor, generator: torch.Generator) -> Tensor:
    angles = torch.deg2rad(50 * torch.rand(len(images), generator=generator) - 25)
    cos, sin = angles.cos(), angles.sin()
    maps = torch.stack([torch.stack([cos, -sin, 0 * cos], 1), torch.stack([sin, cos, 0 * cos], 1)], 1)
    return F.grid_sample(images, F.affine_grid(maps, list(images.shape), align_corners=False), align_corners=False)


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    padded = F.pad(images, (4, 4, 4, 4))
    places = torch.randint(0, 9, (len(images), 2), generator=generator).tolist()
    size = images.shape[-1]
    return torch.stack([each[:, y : y + size, x : x + size] for each, (y, x) in zip(padded, places, strict=True)])


def _struck(images: Tensor, generator: torch.Generator) -> Tensor:
    rows = torch.randint(8, 20, (len(images),), generator=generator)
    struck = images.clone()
    struck[torch.arange(len(images)), 0, rows] = 255
    return struck


CORRUPTIONS: dict[str, tuple[str, Corruption]] = {
    "noise": ("with noise", _noisy),
    "blur": ("blurred", _blurred),
    "faint": ("with ink of 40 % brightness", _faint),
    "turned": ("turned by up to 25 degrees", _turned),
    "shifted": ("shifted by up to 4 pixels", _shifted),
    "struck through": ("struck through with a line", _struck),
}


def _by_class(confusion: Tensor) -> tuple[tuple[ClassResult, ...], tuple[Mistake, ...]]:
    """Return the results by class and the mistakes, the most frequent first."""
    rows = confusion.tolist()
    predicted = confusion.sum(0).tolist()
    classes = tuple(ClassResult(sum(row), row[i], predicted[i]) for i, row in enumerate(rows))
    mistakes = [Mistake(i, j, row[j]) for i, row in enumerate(rows) for j in range(len(row)) if i != j and row[j]]
    mistakes.sort(key=lambda mistake: -mistake.images)
    return classes, tuple(mistakes[:MOST_MISTAKES])


def _latency(model: Model, images: Images) -> Latency:
    alone, many = (microseconds_per_image(model.classifier, images, batch) for batch in (1, IMAGES_PER_RUN))
    return Latency(round(alone, 1), round(many, 1), cpu(), IMAGES_PER_RUN)
