"""Style augmentation: digits in styles that MNIST lacks.

MNIST's digits come from one country, one scanner and two groups of writers. A network trained on them alone reads the
European 1, which has an upstroke, as a 7, and misreads pictures of 8x8 pixels, in which neighbouring strokes merge.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Each pair holds the bounds of a uniform random draw.
LOG_WIDTH_FACTOR = (math.log(0.65), math.log(1.3))
# Some data sets stretch each digit until it fills its box. In such a data set, a 1 of height 20 has this width.
BAR_WIDTH = (5.0, 14.0)  # pixels
# How much a stroke grows on each side. The lower bound is close to 0, because thin strokes would vanish otherwise.
STROKE_GROWTH = (-0.5, 1.5)  # pixels
UPSTROKE_ANGLE = (math.radians(25), math.radians(70))  # below the horizontal
UPSTROKE_LENGTH = (3.5, 10.0)  # pixels
UPSTROKE_HALF_BREADTH = (0.8, 1.6)  # pixels
COARSE_SIDE = (8, 16)  # pixels; the upper bound is excluded
# Programs that enlarge small pictures often sharpen them. The contrast changes around this grey value.
COARSE_CONTRAST = (1.0, 1.8)
COARSE_GREY = 110.0
# Black and white pictures have pixels of two values only. Pixels brighter than the level become ink.
BITMAP_SIDE = (14, 29)  # pixels; the upper bound is excluded
BITMAP_LEVEL = (60.0, 180.0)
# Pixels brighter than this count as ink.
INK = 100


def restyle(images: Tensor, labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return the images, a random share of them in another style.

    Each of :func:`width`, :func:`pen` and :func:`coarse` changes ``share`` of all images, and :func:`bitmap` half of
    that. :func:`bar` changes ``share`` of the ones, and :func:`upstroke` twice that. The draws are independent, so
    several changes can meet in one image.

    Args:
        images: ``[N, 28, 28]`` in 0..255, background 0.
        labels: the digits, int64 ``[N]``. If the images are on a GPU, give labels on the CPU: which images change is
            decided there, and labels on the GPU would have to be waited for.
        share: 0..1.
        generator: source of the random numbers, on the CPU.

    Returns:
        float32 ``[N, 28, 28]`` in 0..255.
    """
    changed = images.float().clone()

    def draw(share: float) -> Tensor:
        return torch.rand(len(labels), generator=generator) < share

    ones = labels.cpu() == 1
    for chosen, change in (
        (draw(2 * share) & ones, upstroke),
        (draw(share) & ones, bar),
        (draw(share), width),
        (draw(share), pen),
        (draw(share), coarse),
        (draw(share / 2), bitmap),
    ):
        if chosen.any():
            indices = chosen.nonzero().squeeze(1).to(images.device, non_blocking=True)
            made = change(changed[indices], generator)
            # Stretch the ink to 255, because the service does so with every picture that it reads.
            changed[indices] = (made * (255 / made.amax(dim=(1, 2), keepdim=True).clamp(min=1))).clamp(0, 255)
    return changed


def upstroke(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a line in each image from the top of the digit down to the left."""
    size = images.shape[1]
    positions = torch.arange(size, device=images.device) + 0.5
    top = (images > INK).any(dim=2).int().argmax(dim=1)
    # The line begins in the middle of the first two rows of ink.
    rows = torch.arange(size, device=images.device) - top[:, None]
    head = (images * ((rows >= 0) & (rows < 2))[:, :, None]).sum(dim=1) + 1e-6
    x = ((head * positions).sum(dim=1) / head.sum(dim=1))[:, None, None]
    y = (top + 1.0)[:, None, None]
    angle, length, half_breadth = (
        _uniform(bounds, images, generator)[:, None, None]
        for bounds in (UPSTROKE_ANGLE, UPSTROKE_LENGTH, UPSTROKE_HALF_BREADTH)
    )
    # The distance of each pixel from the nearest point of the line.
    right, down = positions - x, positions[:, None] - y
    along = (down * torch.sin(angle) - right * torch.cos(angle)).clamp(min=0).minimum(length)
    distance = torch.hypot(right + along * torch.cos(angle), down - along * torch.sin(angle))
    return images.maximum((half_breadth - distance + 0.5).clamp(0, 1) * 255)


def bar(images: Tensor, generator: torch.Generator) -> Tensor:
    """Stretch each 1 to a bar about as wide as other digits are."""
    ink = (images > INK).any(dim=1).int()
    before = images.shape[2] - ink.argmax(dim=1) - ink.flip(1).argmax(dim=1)
    return _widened(images, _uniform(BAR_WIDTH, images, generator) / before)


def width(images: Tensor, generator: torch.Generator) -> Tensor:
    """Make each digit narrower or wider."""
    return _widened(images, torch.exp(_uniform(LOG_WIDTH_FACTOR, images, generator)))


def _widened(images: Tensor, factor: Tensor) -> Tensor:
    """Return the images with their width multiplied by ``factor [N]``; the centres of mass stay in place."""
    count, size, _ = images.shape
    columns = images.sum(dim=1)
    # affine_grid measures positions in half-widths of the image, from its middle.
    positions = (torch.arange(size, device=images.device) * 2 + 1) / size - 1
    centre = (columns * positions).sum(dim=1) / columns.sum(dim=1).clamp(min=1)
    theta = torch.zeros(count, 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 0, 2] = 1 / factor, centre * (1 - 1 / factor)
    theta[:, 1, 1] = 1
    grid = F.affine_grid(theta, [count, 1, size, size], align_corners=False)
    return F.grid_sample(images.unsqueeze(1), grid, align_corners=False).squeeze(1)


def pen(images: Tensor, generator: torch.Generator) -> Tensor:
    """Make the strokes of each digit thinner or broader."""
    images = images.unsqueeze(1)
    thinner = -F.max_pool2d(-images, 3, stride=1, padding=1)
    broader = F.max_pool2d(images, 3, stride=1, padding=1)
    broadest = F.max_pool2d(images, 5, stride=1, padding=2)
    growth = _uniform(STROKE_GROWTH, images, generator)[:, None, None, None]
    changed = images - growth.clamp(max=0) * (thinner - images)
    changed = changed + growth.clamp(0, 1) * (broader - images) + (growth - 1).clamp(min=0) * (broadest - broader)
    return changed.squeeze(1)


def coarse(images: Tensor, generator: torch.Generator) -> Tensor:
    """Reduce the images to few pixels and enlarge them again, as the service enlarges small pictures.

    All images of a call get the same number of pixels, so small batches give more variety.
    """
    side = int(torch.randint(*COARSE_SIDE, (), generator=generator))
    small = F.interpolate(images.unsqueeze(1), (side, side), mode="area")
    large = F.interpolate(small, images.shape[1:], mode="bicubic", align_corners=False).squeeze(1)
    contrast = _uniform(COARSE_CONTRAST, images, generator)[:, None, None]
    return (large - COARSE_GREY) * contrast + COARSE_GREY


def bitmap(images: Tensor, generator: torch.Generator) -> Tensor:
    """Reduce the images to few pixels of two values, black and white, and enlarge them again.

    All images of a call get the same number of pixels, as in :func:`coarse`.
    """
    side = int(torch.randint(*BITMAP_SIDE, (), generator=generator))
    small = F.interpolate(images.unsqueeze(1), (side, side), mode="area")
    level = _uniform(BITMAP_LEVEL, images, generator)[:, None, None, None]
    # A thin line can lie below the level everywhere. The brightest pixels are ink in any case.
    level = level.minimum(small.amax(dim=(2, 3), keepdim=True))
    small = ((small >= level) & (small > 0)) * 255.0
    return F.interpolate(small, images.shape[1:], mode="bicubic", align_corners=False).squeeze(1)


def _uniform(bounds: tuple[float, float], images: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random number for each image, on the device of the images."""
    low, high = bounds
    return (low + (high - low) * torch.rand(len(images), generator=generator)).to(images.device, non_blocking=True)
