"""The networks by name, and the one way pixels are scaled for them.

Every network takes float32 ``[N, 1, 28, 28]`` from :func:`normalize` and gives logits ``[N, 10]``.

    mlp         784-28-10 with ReLU, the tutorial's network         22,270 parameters
    cnn         four convolutions, 28 -> 14 -> 7, two poolings      61,946
    cnn-small   five narrow ones                                     7,182
    cnn-large   five wide ones                                     158,674
    cnn-speed   as cnn, its first convolution strided               61,946
    cnn-5x5     five of 5x5 without padding or pooling             308,090
    cnn-7x7     four of 7x7 without padding or pooling             581,506
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from training.config import check_name

IMAGE_SIZE = 28
CLASSES = 10
# Of the 60,000 training images, pixels in 0..1; the values the tutorial uses.
MEAN = 0.1307
DEVIATION = 0.3081


def normalize(images: Tensor) -> Tensor:
    """Pixels in 0..255, uint8 or float ``[N, 28, 28]``, to network input ``[N, 1, 28, 28]``.

    (x / 255 - mean) / deviation, written as one multiply and one add: half the passes over memory
    here, and two nodes instead of four in the exported graph.
    """
    return (images.float() * (1 / (255 * DEVIATION)) - MEAN / DEVIATION).unsqueeze(1)


class Mlp(nn.Sequential):
    """The tutorial's network: 784 pixels, 28 hidden units, 10 logits."""

    def __init__(self) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(IMAGE_SIZE * IMAGE_SIZE, 28),
            nn.ReLU(),
            nn.Linear(28, CLASSES),
        )


class Cnn(nn.Module):
    """Convolutions in three stages, 28 -> 14 -> 7, then average and maximum of each feature map.

    Pooling comes before normalization and ReLU, which then work on a quarter of the values: the same
    accuracy for three quarters of the time. Average pooling says how much of a feature there is,
    maximum pooling whether it is there at all; the head sees both.

    Args:
        stages: the channels of each convolution, stage by stage; a stage but the last ends with pooling.
        strided: the first convolution, alone in its stage, takes every second position instead: as many parameters
            and three quarters of the time, for a little accuracy.
    """

    def __init__(self, *stages: Sequence[int], strided: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for i, stage in enumerate(stages):
            self.before_last_stage, self.maps = len(layers), before
            for j, channels in enumerate(stage):
                halve = j == len(stage) - 1 and i < len(stages) - 1
                stride = 2 if strided and before == 1 else 1
                # Of a single channel a larger kernel costs little, and sees whole strokes.
                kernel = 5 if before == 1 else 3
                layers += _convolution(before, channels, kernel=kernel, stride=stride, pool=halve and stride == 1)
                before = channels
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * before, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[N, 10]`` of network input ``[N, 1, 28, 28]``."""
        features, _ = self.see(x)
        logits: Tensor = self.head(features)
        return logits

    def see(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the head sees, ``[N, F]``, and what the last stage sees, ``[N, maps, 7, 7]``."""
        maps = x
        for i, layer in enumerate(self.features):
            if i == self.before_last_stage:
                maps = x
            x = layer(x)
        return over_places(x), maps


class Unpooled(nn.Sequential):
    """Convolutions without padding or pooling, each of which takes a rim off the maps; each place left has its weights.

    Slower than :class:`Cnn` and hardly better alone, but it sees digits in another way: a second opinion among
    teachers (the idea is An et al.'s, arXiv:2008.10400, whose networks are twice as wide).

    Args:
        kernel: pixels a side of every convolution.
        channels: of each convolution.
    """

    def __init__(self, kernel: int, channels: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        before = 1
        for after in channels:
            layers += [nn.Conv2d(before, after, kernel, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        side = IMAGE_SIZE - len(channels) * (kernel - 1)
        super().__init__(*layers, nn.Flatten(), nn.Linear(before * side * side, CLASSES))


def over_places(maps: Tensor) -> Tensor:
    """Average and maximum of each feature map: ``[N, C, H, W]`` to ``[N, 2C]``."""
    return torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)


def _convolution(
    channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, pool: bool = False
) -> list[nn.Module]:
    """Convolution keeping the size, or halving it by its stride or by pooling; BatchNorm supplies the bias."""
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        *([nn.MaxPool2d(2)] if pool else []),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "cnn": lambda: Cnn([16], [32], [64, 64]),
    "cnn-small": lambda: Cnn([8], [12, 12], [16, 18]),
    "cnn-large": lambda: Cnn([24], [48, 48], [96, 96]),
    "cnn-speed": lambda: Cnn([16], [32], [64, 64], strided=True),
    "cnn-5x5": lambda: Unpooled(5, [16, 32, 48, 64, 80]),
    "cnn-7x7": lambda: Unpooled(7, [24, 48, 72, 96]),
    "mlp": Mlp,
}


def build(name: str) -> nn.Module:
    """A network with fresh weights from torch's default generator.

    Raises:
        ConfigError: there is no network of that name.
    """
    check_name("model", name, NETWORKS)
    return NETWORKS[name]()


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers in the network."""
    return sum(parameter.numel() for parameter in network.parameters())
