"""The networks by name, and the scaling of their input.

Every network takes float32 ``[N, 1, 28, 28]`` from :func:`normalize` and returns logits ``[N, C]`` for C classes.

    name        layers                                parameters with ten classes
    mlp         784-28-10 with ReLU, the tutorial's network             22,270
    cnn         four convolutions, 28 -> 14 -> 7 by two poolings        61,946
    cnn-small   five convolutions with few channels                      7,182
    cnn-first   like cnn-fast with few channels, for a cascade          17,370
    cnn-light   like cnn, two without padding and one narrower          59,426
    cnn-large   five convolutions with many channels                   158,674
    cnn-speed   like cnn, but the first convolution has a stride        61,946
    cnn-fast    like cnn-speed, two without padding and one wider       71,514
    cnn-5x5     five 5x5 convolutions without padding or pooling       308,090
    cnn-7x7     four 7x7 convolutions without padding or pooling       581,506
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.config import check_name

IMAGE_SIZE = 28
CLASSES = 10  # of MNIST
# Mean and standard deviation of the pixels of the 60,000 training images, in 0..1. The tutorial uses these values.
MEAN = 0.1307
DEVIATION = 0.3081


def normalize(images: Tensor) -> Tensor:
    """Scale pixels in 0..255, uint8 or float ``[N, 28, 28]``, to network input ``[N, 1, 28, 28]``.

    The result is (x / 255 - mean) / deviation, written as one multiplication and one addition. This halves
    the passes over memory, and the exported graph has two nodes instead of four.
    """
    return (images.float() * (1 / (255 * DEVIATION)) - MEAN / DEVIATION).unsqueeze(1)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which networks compute in ``precision``, float32 or bfloat16."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


class Features(NamedTuple):
    """What a network computes from N images before its last layer."""

    vector: Tensor
    """``[N, F]``, the input of the head."""
    maps: Tensor | None = None
    """``[N, C, 7, 7]``, the input of the last stage of convolutions; None for networks without stages. If the
    first two convolutions have no padding, there are 5x5 values."""


class Network(nn.Module):
    """The base of all networks: a feature extractor, then ``head``, one linear layer from features to logits."""

    head: nn.Linear

    def features(self, x: Tensor) -> Features:
        """Return the features of network input ``[N, 1, 28, 28]``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of network input ``[N, 1, 28, 28]``."""
        logits: Tensor = self.head(self.features(x).vector)
        return logits


class Mlp(Network):
    """The tutorial's network: 784 pixels, 28 hidden units, 10 logits."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.hidden = nn.Linear(IMAGE_SIZE * IMAGE_SIZE, 28)
        self.head = nn.Linear(28, classes)

    def features(self, x: Tensor) -> Features:
        return Features(self.hidden(x.flatten(1)).relu())


class Cnn(Network):
    """Stages of convolutions at 28, 14 and 7 pixels, then the average and the maximum of each feature map.

    Pooling comes before normalization and ReLU, so these two work on a quarter of the values. The accuracy is the
    same, and the time is three quarters. At the end, the average measures how much of a feature an image has, and
    the maximum measures whether the image has it at all. The head gets both.

    Args:
        stages: the output channels of each convolution, stage by stage. Every stage except the last ends with pooling.
        strided: whether the first convolution has stride 2, and its stage has no pooling. The first stage must then be
            this one convolution. The number of parameters stays the same, the time falls to three quarters, and a
            little accuracy is lost.
        unpadded: number of the first convolutions that have no padding. They cut the border off the feature maps, which
            is empty in most images.
    """

    def __init__(
        self, *stages: Sequence[int], strided: bool = False, unpadded: int = 0, classes: int = CLASSES
    ) -> None:
        super().__init__()
        layers: list[list[nn.Module]] = []
        before = 1
        for i, stage in enumerate(stages):
            layers.append([])
            for j, channels in enumerate(stage):
                halve = j == len(stage) - 1 and i < len(stages) - 1
                stride = 2 if strided and before == 1 else 1
                # With a single input channel a larger kernel costs little, and it covers whole strokes.
                kernel = 5 if before == 1 else 3
                padding = kernel // 2 if unpadded <= 0 else 0
                layers[-1] += _convolution(
                    before, channels, kernel=kernel, stride=stride, padding=padding, pool=halve and stride == 1
                )
                before, unpadded = channels, unpadded - 1
        self.first_stages = nn.Sequential(*(layer for stage in layers[:-1] for layer in stage))
        self.last_stage = nn.Sequential(*layers[-1])
        self.head = nn.Linear(2 * before, classes)

    def features(self, x: Tensor) -> Features:
        maps = self.first_stages(x)
        return Features(average_and_maximum(self.last_stage(maps)), maps)


class Unpooled(Network):
    """Convolutions without padding or pooling. Each one cuts a border off the feature maps.

    The head has a weight for every position that is left. A network of this kind is slower than a :class:`Cnn` and
    hardly more accurate. In an ensemble of teachers it helps, because it makes other mistakes. The idea is from
    An et al. (arXiv:2008.10400), whose networks have twice as many channels.

    Args:
        kernel: width and height of every convolution's kernel, in pixels.
        channels: the output channels of each convolution.
    """

    def __init__(self, kernel: int, channels: Sequence[int], *, classes: int = CLASSES) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for after in channels:
            layers += [nn.Conv2d(before, after, kernel, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        side = IMAGE_SIZE - len(channels) * (kernel - 1)
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(before * side * side, classes)

    def features(self, x: Tensor) -> Features:
        return Features(self.convolutions(x))


def average_and_maximum(maps: Tensor) -> Tensor:
    """Return the average and the maximum of each feature map: ``[N, C, H, W]`` to ``[N, 2C]``."""
    return torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)


def _convolution(
    channels_in: int, channels_out: int, *, kernel: int, stride: int, padding: int, pool: bool
) -> list[nn.Module]:
    # BatchNorm supplies the bias.
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=padding, bias=False),
        *([nn.MaxPool2d(2)] if pool else []),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]


NETWORKS: dict[str, Callable[[int], Network]] = {
    "cnn": lambda classes: Cnn([16], [32], [64, 64], classes=classes),
    "cnn-small": lambda classes: Cnn([8], [12, 12], [16, 18], classes=classes),
    "cnn-light": lambda classes: Cnn([8], [32], [64, 64], unpadded=2, classes=classes),
    "cnn-large": lambda classes: Cnn([24], [48, 48], [96, 96], classes=classes),
    "cnn-speed": lambda classes: Cnn([16], [32], [64, 64], strided=True, classes=classes),
    "cnn-fast": lambda classes: Cnn([16], [32], [64, 80], strided=True, unpadded=2, classes=classes),
    "cnn-first": lambda classes: Cnn([16], [16], [32, 32], strided=True, unpadded=2, classes=classes),
    "cnn-5x5": lambda classes: Unpooled(5, [16, 32, 48, 64, 80], classes=classes),
    "cnn-7x7": lambda classes: Unpooled(7, [24, 48, 72, 96], classes=classes),
    "mlp": Mlp,
}


def build(name: str, classes: int = CLASSES) -> Network:
    """Return the network ``name`` for this many classes, with fresh weights from torch's default generator.

    Raises:
        ConfigError: there is no network of that name.
    """
    check_name("model", name, NETWORKS)
    return NETWORKS[name](classes)


def classes_of(weights: Mapping[str, Tensor]) -> int:
    """Return the number of classes of a network by its weights.

    Raises:
        KeyError: they are not the weights of a network.
    """
    return len(weights["head.bias"])


@torch.inference_mode()
def multiplications(network: Network) -> int:
    """Return the number of multiplications by a weight that the prediction for one image takes."""
    total = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        total += output[0].numel() * module.get_parameter("weight")[0].numel()

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    was_training = network.training
    network.eval()
    network(layers[0].weight.new_zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return total


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable values in the network."""
    return sum(parameter.numel() for parameter in network.parameters())
