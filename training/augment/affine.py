"""Random affine changes of a whole batch at once, as tensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Standard deviations of normal draws, cut off at two of them. Narrow-normal rather than uniform: most
# images stay near what they were, a few go far (the idea is Byerly et al.'s, arXiv:2001.09136).
ROTATION = math.radians(9)
SHEAR = 0.12
LOG_SCALE = 0.08
SHIFT = 0.9  # pixels; the cut-off leaves the ink in the frame, MNIST keeps a margin of 4
# Resampling blurs, and a convolutional network that sees blurred digits alone reads sharp ones worse. Contrast
# raised so far leaves as many pixels full of ink, and as few between, as the images themselves have.
CONTRAST = 1.4
KNOTS = 5  # a side of the coarse grid


def augment(
    images: Tensor,
    generator: torch.Generator | None = None,
    *,
    strength: float = 1.0,
    elastic: float = 0.0,
    contrast: float = CONTRAST,
) -> Tensor:
    """Rotate, scale, shear and shift each image by its own random amounts; bend it, if asked.

    Args:
        images: uint8 or float ``[N, 28, 28]``, background 0.
        generator: where the randomness comes from, on the CPU whatever the device of the images, so
            that a seed means the same everywhere.
        strength: factor on all the deviations above.
        elastic: standard deviation in pixels by which the knots of a coarse grid move, and what lies between with them.
        contrast: factor on what was resampled, about the middle grey; 1 leaves it blurred.

    Returns:
        float32 ``[N, 28, 28]`` in the same units.
    """
    if not (strength or elastic):
        return images.float()
    count, size, _ = images.shape
    # [6, N]: one row a kind of change.
    draws = torch.randn(6, count, generator=generator).clamp_(-2, 2) * strength
    angle, shear = draws[0] * ROTATION, draws[1] * SHEAR
    scale_x, scale_y = torch.exp(draws[2:4] * LOG_SCALE)
    # Places are measured in half-widths of the image.
    shift_x, shift_y = draws[4:6] * (SHIFT * 2 / size)
    cos, sin = torch.cos(angle), torch.sin(angle)
    # Where each output pixel is read from: rotation · shear · scale, then the shift. [N, 2, 3]
    theta = torch.stack(
        [
            torch.stack([cos * scale_x, (cos * shear - sin) * scale_y, shift_x], dim=1),
            torch.stack([sin * scale_x, (sin * shear + cos) * scale_y, shift_y], dim=1),
        ],
        dim=1,
    ).to(images.device)
    # [N, 2, size, size], as F.affine_grid has it, whose matrix product would be a thirtieth of a step of the cnn.
    place = ((torch.arange(size) + 0.5) * 2 / size - 1).to(images.device)
    across, down, shift = theta.view(count, 2, 1, 1, 3).unbind(dim=-1)
    places = across * place + (down * place[:, None] + shift)
    if elastic:
        knots = torch.randn(count, 2, KNOTS, KNOTS, generator=generator).clamp_(-2, 2) * (elastic * 2 / size)
        bent = F.interpolate(knots.to(images.device), (size, size), mode="bilinear", align_corners=True)
        places = places + bent
    grid = places.permute(0, 2, 3, 1)
    changed = F.grid_sample(images.float().unsqueeze(1), grid, align_corners=False).squeeze(1)
    return ((changed - 127.5) * contrast + 127.5).clamp_(0, 255)
