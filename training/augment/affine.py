"""Random affine and elastic changes of images, computed for a whole batch at once."""

from __future__ import annotations

import math

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
    images = _mirrored(images, generator, mirror)
    if not (strength or elastic):
        return images.float()
    count, size, _ = images.shape
    # [6, N]: one row for each kind of change.
    draws = torch.randn(6, count, generator=generator).clamp_(-CUT_OFF, CUT_OFF) * strength
    angle, shear = draws[0] * ROTATION_DEVIATION * (rotation / DEFAULT_ROTATION), draws[1] * SHEAR_DEVIATION
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
    ).to(images.device)
    # [N, 2, size, size]. The values are those of F.affine_grid. Its matrix product would take a thirtieth of
    # the time of a training step of the cnn.
    centres = ((torch.arange(size) + 0.5) * 2 / size - 1).to(images.device)
    from_x, from_y, shift = theta.view(count, 2, 1, 1, 3).unbind(dim=-1)
    positions = from_x * centres + (from_y * centres[:, None] + shift)
    if elastic:
        moves = torch.randn(count, 2, KNOTS, KNOTS, generator=generator).clamp_(-CUT_OFF, CUT_OFF)
        moves = (moves * (elastic * 2 / size)).to(images.device)
        positions = positions + F.interpolate(moves, (size, size), mode="bilinear", align_corners=True)
    grid = positions.permute(0, 2, 3, 1)
    changed = F.grid_sample(images.float().unsqueeze(1), grid, align_corners=False).squeeze(1)
    return ((changed - MIDDLE_GREY) * contrast + MIDDLE_GREY).clamp_(0, 255)


def _mirrored(images: Tensor, generator: torch.Generator | None, mirror: str) -> Tensor:
    for name, axis in (("horizontal", 2), ("vertical", 1)):
        if mirror in (name, "both"):
            chosen = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
            images = torch.where(chosen[:, None, None], images.flip(axis), images)
    return images
