"""Digits as MNIST has none: of other proportions, by other pens, scans of a few pixels, the 1 that Europeans write.

MNIST's digits come from one country, one scanner and two kinds of writers. A network that knew no others would read
a 1 with an upstroke as a 7, and strokes that run together at 8x8 pixels as whatever has none between.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH = (math.log(0.65), math.log(1.3))  # of the factor on it
# Pixels that a 1 is wide, of the 20 it is high, where digits were made to fill their boxes.
BAR = (5.0, 14.0)
# Of a pixel that strokes become thinner or broader on either side. MNIST's thin ones would not bear more.
PEN = (-0.5, 1.5)
COARSE = (8, 16)  # pixels a side, from the first to below the second
COARSE_CONTRAST = (1.0, 1.8)  # what enlarged the image may have sharpened it too
GREY = 110.0
# An upstroke: its angle below the horizontal, its length and half its breadth in pixels.
ANGLE = (math.radians(25), math.radians(70))
LENGTH = (3.5, 10.0)
BREADTH = (0.8, 1.6)


def restyle(images: Tensor, labels: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """A share of the images in another hand: an upstroke to ones, or a bar for them, then other proportions, another
    pen, few pixels.

    Args:
        images: ``[N, 28, 28]`` in 0..255, background 0.
        labels: the digits, int64 ``[N]``.
        share: of the images that each of width, pen and few pixels happens to, independently; of the ones the bar
            too, and an upstroke to twice as many.
        generator: where the randomness comes from, on the CPU.

    Returns:
        float32 ``[N, 28, 28]`` in the same units.
    """
    changed = images.float().clone()

    def some(share: float) -> Tensor:
        return (torch.rand(len(labels), generator=generator) < share).to(images.device)

    ones = labels == 1
    for chosen, change in (
        (some(2 * share) & ones, upstroke),
        (some(share) & ones, bar),
        (some(share), width),
        (some(share), pen),
        (some(share), coarse),
    ):
        if chosen.any():
            made = change(changed[chosen], generator)
            # Ink is as strong as before, for so pictures are prepared (see serving/images.py).
            changed[chosen] = (made * (255 / made.amax(dim=(1, 2), keepdim=True).clamp(min=1))).clamp(0, 255)
    return changed


def upstroke(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A line drawn from the top of the digit down to the left."""
    count, size, _ = images.shape
    positions = torch.arange(size, device=images.device) + 0.5
    top = (images > 100).any(dim=2).int().argmax(dim=1)
    # Where the first two rows of ink have their middle, the line begins.
    rows = torch.arange(size, device=images.device) - top[:, None]
    head = (images * ((rows >= 0) & (rows < 2))[:, :, None]).sum(dim=1) + 1e-6
    x = ((head * positions).sum(dim=1) / head.sum(dim=1))[:, None, None]
    y = (top + 1.0)[:, None, None]
    angle, length, breadth = (
        _uniform(bounds, count, generator).to(images.device)[:, None, None] for bounds in (ANGLE, LENGTH, BREADTH)
    )
    # Each pixel's distance from the nearest point of the line.
    right, down = positions - x, positions[:, None] - y
    along = (down * torch.sin(angle) - right * torch.cos(angle)).clamp(min=0).minimum(length)
    distance = torch.hypot(right + along * torch.cos(angle), down - along * torch.sin(angle))
    return images.maximum((breadth - distance + 0.5).clamp(0, 1) * 255)


def width(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Narrower or wider."""
    return _widened(images, torch.exp(_uniform(WIDTH, len(images), generator)).to(images.device))


def bar(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """As wide as no 1 is written."""
    ink = (images > 100).any(dim=1).int()
    before = images.shape[2] - ink.argmax(dim=1) - ink.flip(1).argmax(dim=1)
    return _widened(images, _uniform(BAR, len(images), generator).to(images.device) / before)


def _widened(images: Tensor, factor: Tensor) -> Tensor:
    """Their centres of mass stay where they are."""
    count, size, _ = images.shape
    columns = images.sum(dim=1)
    # affine_grid measures in half-widths of the image from its middle.
    edges = (torch.arange(size, device=images.device) * 2 + 1) / size - 1
    centre = (columns * edges).sum(dim=1) / columns.sum(dim=1).clamp(min=1)
    theta = torch.zeros(count, 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 0, 2] = 1 / factor, centre * (1 - 1 / factor)
    theta[:, 1, 1] = 1
    grid = F.affine_grid(theta, [count, 1, size, size], align_corners=False)
    return F.grid_sample(images.unsqueeze(1), grid, align_corners=False).squeeze(1)


def pen(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Strokes broader or thinner."""
    images = images.unsqueeze(1)
    thinner = -F.max_pool2d(-images, 3, stride=1, padding=1)
    broader = F.max_pool2d(images, 3, stride=1, padding=1)
    broadest = F.max_pool2d(images, 5, stride=1, padding=2)
    change = _uniform(PEN, len(images), generator).to(images.device)[:, None, None, None]
    changed = images - change.clamp(max=0) * (thinner - images)
    changed = changed + change.clamp(0, 1) * (broader - images) + (change - 1).clamp(min=0) * (broadest - broader)
    return changed.squeeze(1)


def coarse(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Averaged down to few pixels, and enlarged again as a small picture is."""
    size = int(torch.randint(*COARSE, (), generator=generator))
    small = F.interpolate(images.unsqueeze(1), (size, size), mode="area")
    large = F.interpolate(small, images.shape[1:], mode="bicubic", align_corners=False).squeeze(1)
    contrast = _uniform(COARSE_CONTRAST, len(images), generator).to(images.device)[:, None, None]
    return (large - GREY) * contrast + GREY


def _uniform(bounds: tuple[float, float], count: int, generator: torch.Generator | None) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(count, generator=generator)
