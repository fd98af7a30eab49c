"""Random affine and elastic changes of images, computed for a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Standard deviations of the random changes. The draws are normal, not uniform: most images change little and a
# few change much (the idea is from Byerly et al., arXiv:2001.09136).
ROTATION_DEVIATION = math.radians(9)
SHEAR_DEVIATION = 0.12
LOG_SCALE_DEVIATION = 0.08
SHIFT_DEVIATION = 0.9  # pixels
# Draws are cut off at this many deviations. Digits then stay in the frame, because MNIST has a margin of 4 pixels.
CUT_OFF = 2
# The largest rotation in degrees, which is CUT_OFF deviations.
DEFAULT_ROTATION = 18.0
# Resampling blurs images, and a convolutional network that is trained on blurred digits reads sharp ones worse. With
# this contrast the images have about as many pixels of full ink and as many grey pixels as before.
DEFAULT_CONTRAST = 1.4
MIDDLE_GREY = 127.5
# The elastic change moves the knots of a grid of KNOTS x KNOTS points.
KNOTS = 5
# The axis of images ``[N, 28, 28]`` that each row of ``Changes.flips`` reverses: columns, then rows.
FLIPPED_AXES = (2, 1)


class Changes(NamedTuple):
    """The random changes of N images, on the CPU."""

    flips: Tensor | None
    """Bool ``[2, N]``: whether each image is mirrored horizontally, and vertically; None if no image is."""
    draws: Tensor | None
    """``[6, N]``: the rotation, the shear, the two scales and the two shifts of each image, in deviations; None if the
    images are not resampled."""
    moves: Tensor | None
    """``[N, 2, KNOTS, KNOTS]``: the shift of each knot in half-widths of the image; None without elastic changes."""


def augment(
    images: Tensor,
    generator: torch.Generator | None = None,
    *,
    strength: float = 1.0,
    rotation: float = DEFAULT_ROTATION,
    mirror: str = "none",
    elastic: float = 0.0,
    contrast: float = DEFAULT_CONTRAST,
) -> Tensor:
    """Return the images, each one rotated, scaled, sheared and shifted by its own random amounts.

    Args:
        images: uint8 or float ``[N, 28, 28]`` in 0..255, background 0.
        generator: source of the random numbers. It is on the CPU, whatever the device of the images, so that a seed
            gives the same changes on every device.
        strength: factor of all the deviations above and of the rotation; 0 is off.
        rotation: the largest angle of the rotation in degrees.
        mirror: ``none``, or how half of the images are mirrored: ``horizontal``, ``vertical``, or ``both``
            independently.
        elastic: standard deviation in pixels by which the knots of a coarse grid move. Pixels between the knots move
            with them. 0 is off.
        contrast: factor of the contrast after resampling; 1 leaves the images blurred.

    Returns:
        float32 ``[N, 28, 28]`` in 0..255.
    """
    count, size, _ = images.shape
    changes = draw_changes(count, size, generator, strength=strength, rotation=rotation, mirror=mirror, elastic=elastic)
    return apply_changes(images, changes, contrast=contrast)


def draw_changes(
    count: int,
    size: int,
    generator: torch.Generator | None,
    *,
    strength: float,
    rotation: float,
    mirror: str,
    elastic: float,
) -> Changes:
    """Draw the changes of ``count`` images of ``size`` pixels. The settings are those of :func:`augment`."""
    flips = None
    if mirror != "none":
        flips = torch.rand(2, count, generator=generator) < 0.5
        flips &= torch.tensor([[mirror in ("horizontal", "both")], [mirror in ("vertical", "both")]])
    if not (strength or elastic):
        return Changes(flips, None, None)
    draws = torch.randn(6, count, generator=generator).clamp_(-CUT_OFF, CUT_OFF) * strength
    draws[0] *= rotation / DEFAULT_ROTATION
    if not elastic:
        return Changes(flips, draws, None)
    moves = torch.randn(count, 2, KNOTS, KNOTS, generator=generator).clamp_(-CUT_OFF, CUT_OFF)
    return Changes(flips, draws, moves * (elastic * 2 / size))


def join_changes(parts: Sequence[Changes]) -> Changes:
    """Return the changes of several batches as those of one batch, so that one call applies them all."""
    if len(parts) == 1:
        return parts[0]
    flips = [part.flips for part in parts if part.flips is not None]
    draws = [part.draws for part in parts if part.draws is not None]
    moves = [part.moves for part in parts if part.moves is not None]
    return Changes(
        torch.cat(flips, dim=1) if flips else None,
        torch.cat(draws, dim=1) if draws else None,
        torch.cat(moves) if moves else None,
    )


def apply_changes(images: Tensor, changes: Changes, *, contrast: float) -> Tensor:
    """Return the images ``[N, 28, 28]`` after their changes, as :func:`augment` does.

    No image depends on the others, so the result is the same for any division into batches.
    """
    if changes.flips is not None:
        for is_flipped, axis in zip(changes.flips.to(images.device, non_blocking=True), FLIPPED_AXES, strict=True):
            images = torch.where(is_flipped[:, None, None], images.flip(axis), images)
    draws = changes.draws
    if draws is None:
        return images.float()
    count, size, _ = images.shape
    angle, shear = draws[0] * ROTATION_DEVIATION, draws[1] * SHEAR_DEVIATION
    scale_x, scale_y = torch.exp(draws[2:4] * LOG_SCALE_DEVIATION)
    # grid_sample measures positions in half-widths of the image.
    shift_x, shift_y = draws[4:6] * (SHIFT_DEVIATION * 2 / size)
    cos, sin = torch.cos(angle), torch.sin(angle)
    # The position that each output pixel is read from: rotation · shear · scale, then the shift. [N, 2, 3]
    theta = torch.stack(
        [
            torch.stack([cos * scale_x, (cos * shear - sin) * scale_y, shift_x], dim=1),
            torch.stack([sin * scale_x, (sin * shear + cos) * scale_y, shift_y], dim=1),
        ],
        dim=1,
    ).to(images.device, non_blocking=True)
    # [N, 2, size, size]. The values are those of F.affine_grid. Its matrix product would take a thirtieth of
    # the time of a training step of the cnn.
    centres = ((torch.arange(size) + 0.5) * 2 / size - 1).to(images.device, non_blocking=True)
    from_x, from_y, shift = theta.view(count, 2, 1, 1, 3).unbind(dim=-1)
    positions = from_x * centres + (from_y * centres[:, None] + shift)
    if changes.moves is not None:
        moves = changes.moves.to(images.device, non_blocking=True)
        positions = positions + F.interpolate(moves, (size, size), mode="bilinear", align_corners=True)
    grid = positions.permute(0, 2, 3, 1)
    changed = F.grid_sample(images.float().unsqueeze(1), grid, align_corners=False).squeeze(1)
    return ((changed - MIDDLE_GREY) * contrast + MIDDLE_GREY).clamp_(0, 255)
