"""Copy a trained network into one with fewer channels.

Dropping a channel of a convolution changes what the next convolution computes. So the channels are dropped one by one,
each time the one that other weights of the next convolution can best replace. These weights are found by least squares
(ThiNet, Luo et al., arXiv:1707.06342). Further training makes up for the rest.
"""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.networks import Cnn, Network, normalize

# A convolution of 3x3 with 16 channels has 145 unknowns. A thousand images have 200,000 patches.
IMAGES, BATCH = 1000, 100
# Keeps the equations solvable if a channel is always zero. In units of the mean square of all values.
RIDGE = 1e-6
# What a BatchNorm holds for each channel.
PER_CHANNEL = ("weight", "bias", "running_mean", "running_var")


def can_narrow(wide: Network, narrow: Network) -> bool:
    """Return whether ``narrow`` has the convolutions of ``wide``, but some with fewer channels. Padding may differ."""
    if not (isinstance(wide, Cnn) and isinstance(narrow, Cnn)):
        return False
    shapes = [[layer.weight.shape for layer in _convolutions(network)] for network in (wide, narrow)]
    strides = [[layer.stride for layer in _convolutions(network)] for network in (wide, narrow)]
    return (
        len(shapes[0]) == len(shapes[1])
        and strides[0] == strides[1]
        and all(old[0] >= new[0] and old[2:] == new[2:] for old, new in zip(*shapes, strict=True))
        and shapes[0][-1][0] == shapes[1][-1][0]
    )


def narrow_weights(wide: Network, narrow: Network, images: Tensor) -> dict[str, Tensor]:
    """Return weights for ``narrow``, made from those of ``wide``.

    Args:
        wide: a trained network for which :func:`can_narrow` is true.
        images: images to measure on, uint8 ``[N, 28, 28]``. At most a thousand of them are used.
    """
    wide.eval()
    # Every nth image, so that they are from the whole set.
    images = images[:: -(-len(images) // IMAGES)]
    weights = wide.state_dict()
    names = {layer: name for name, layer in wide.named_modules()}
    norms = [layer for layer in wide.modules() if isinstance(layer, nn.BatchNorm2d)]
    convolutions, smaller = _convolutions(wide), _convolutions(narrow)
    for i, (before, after) in enumerate(itertools.pairwise(convolutions)):
        if before.out_channels == smaller[i].out_channels:
            continue
        moments = _moments(wide, after, images)
        kept, fitted, constant = _fewer(after, norms[i + 1], moments, smaller[i].out_channels)
        for name in (f"{names[before]}.weight", *(f"{names[norms[i]]}.{each}" for each in PER_CHANNEL)):
            weights[name] = weights[name][kept]
        weights[f"{names[after]}.weight"] = fitted
        # The BatchNorm behind the next convolution subtracts a running mean, which can include the constant of the fit.
        mean = f"{names[norms[i + 1]]}.running_mean"
        weights[mean] = weights[mean] - constant
    return weights


def _convolutions(network: Network) -> list[nn.Conv2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def _moments(network: Network, convolution: nn.Conv2d, images: Tensor) -> Tensor:
    """Return the mean products ``[K + 1, K + 1]`` of the K values in a patch that ``convolution`` sees, and of a 1."""
    sums, count = torch.zeros(1), 0

    def add(_: nn.Module, inputs: tuple[Tensor]) -> None:
        nonlocal sums, count
        padding = cast("tuple[int, int]", convolution.padding)
        patches = functional.unfold(inputs[0], convolution.kernel_size, padding=padding).transpose(1, 2).flatten(0, 1)
        patches = functional.pad(patches, (0, 1), value=1.0).double()
        sums = sums + patches.T @ patches
        count += len(patches)

    handle = convolution.register_forward_pre_hook(add)
    with torch.no_grad():
        for batch in images.split(BATCH):
            network(normalize(batch))
    handle.remove()
    return sums / count


def _fewer(
    convolution: nn.Conv2d, norm: nn.BatchNorm2d, moments: Tensor, count: int
) -> tuple[list[int], Tensor, Tensor]:
    """Return which ``count`` input channels to keep, the weights for them, and a constant for each output channel."""
    old = convolution.weight.detach().flatten(1).double()
    # The BatchNorm divides each output by its standard deviation. So an error counts in units of that deviation.
    importance = (norm.weight.detach() ** 2 / (norm.get_buffer("running_var") + norm.eps)).double()
    positions = old.shape[1] // convolution.in_channels
    ridge = RIDGE * moments.diagonal().mean()

    def fit(channels: list[int]) -> tuple[float, Tensor]:
        places = [channel * positions + i for channel in channels for i in range(positions)] + [old.shape[1]]
        among = moments[places][:, places] + ridge * torch.eye(len(places), dtype=torch.float64)
        found = torch.linalg.solve(among, moments[places, :-1] @ old.T)
        error = functional.pad(old, (0, 1)).T.clone()
        error[places] -= found
        return float(((moments @ error) * error).sum(dim=0) @ importance), found

    kept = list(range(convolution.in_channels))
    while len(kept) > count:
        kept = min(([other for other in kept if other != each] for each in kept), key=lambda channels: fit(channels)[0])
    _, found = fit(kept)
    shape = (convolution.out_channels, count, *convolution.kernel_size)
    return kept, found[:-1].T.reshape(shape).float(), found[-1].float()
