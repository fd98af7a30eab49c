"""The networks by name, and the one way pixels are scaled for them.

Every network takes float32 ``[N, 1, 28, 28]`` from :func:`normalize` and gives logits ``[N, 10]``.

    mlp         784-28-10 with ReLU, the tutorial's network         22,270 parameters
    cnn         four convolutions, 28 -> 14 -> 7, two poolings      61,946
    cnn-small   five narrow ones                                     7,182
    cnn-large   five wide ones                                     158,674
    cnn-speed   as cnn, its first convolution strided               61,946

Of cnn-large there are four more, each of which sees digits in one of :data:`NORMAL_FORMS`: cnn-large-upright, -narrow,
-wide and -square. Networks that see differently are wrong differently, and know more together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
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


class NormalForm(nn.Module):
    """Brings digits upright, and to one width or height, by the moments of their ink.

    Committees of networks that see one width each are Ciresan et al.'s (arXiv:1202.2745). Here by moments, which
    change smoothly with every pixel, rather than by the ink's box, which jumps.

    Args:
        width, height: standard deviation of the ink along it, in pixels; None leaves what there is.
    """

    def __init__(self, *, width: float | None = None, height: float | None = None) -> None:
        super().__init__()
        self.width, self.height = width, height

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Network input ``[N, 1, 28, 28]`` to the same, its centre of mass in the middle."""
        ink = (x.float() * DEVIATION + MEAN).clamp_min(0)
        place = torch.arange(IMAGE_SIZE, device=x.device) - (IMAGE_SIZE - 1) / 2
        by_row, by_column = ink.sum(dim=3).squeeze(1), ink.sum(dim=2).squeeze(1)
        mass = by_row.sum(dim=1).clamp_min(1e-6)
        row, column = (by_row @ place) / mass, (by_column @ place) / mass
        rows, columns = place - row[:, None], place - column[:, None]
        row_variance = ((by_row * rows.square()).sum(dim=1) / mass).clamp_min(1e-2)
        column_variance = (by_column * columns.square()).sum(dim=1) / mass
        covariance = torch.einsum("nij,ni,nj->n", ink.squeeze(1), rows, columns) / mass
        slant = (covariance / row_variance).clamp(-MOST_SLANT, MOST_SLANT)
        upright_variance = column_variance - 2 * slant * covariance + slant.square() * row_variance
        across, down = _stretch(upright_variance, self.width), _stretch(row_variance, self.height)
        # Where each pixel is read from, [N, 2, 3]; shifts count in half-widths of the image.
        half = IMAGE_SIZE / 2
        theta = torch.stack(
            [
                torch.stack([1 / across, slant / down, column / half], dim=1),
                torch.stack([torch.zeros_like(mass), 1 / down, row / half], dim=1),
            ],
            dim=1,
        )
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return (F.grid_sample(ink, grid, align_corners=False) - MEAN) / DEVIATION


def _stretch(variance: Tensor, wanted: float | None) -> Tensor:
    """The factor that brings digits to a standard deviation, within bounds: a 1 need not become a block."""
    if wanted is None:
        return torch.ones_like(variance)
    return (wanted / variance.clamp_min(1e-2).sqrt()).clamp(1 / MOST_STRETCH, MOST_STRETCH)


# Standard deviations in pixels; upright, MNIST's digits have 3.5 across and 5.5 down by the median.
NORMAL_FORMS: dict[str, dict[str, float]] = {
    "upright": {},
    "narrow": {"width": 2.7},
    "wide": {"width": 4.5},
    "square": {"width": 4.2, "height": 4.2},
}
MOST_SLANT, MOST_STRETCH = 0.8, 1.7


class Cnn(nn.Module):
    """Convolutions in three stages, 28 -> 14 -> 7, then average and maximum of each feature map.

    Pooling comes before normalization and ReLU, which then work on a quarter of the values: the same
    accuracy for three quarters of the time. Average pooling says how much of a feature there is,
    maximum pooling whether it is there at all; the head sees both.

    Args:
        stages: the channels of each convolution, stage by stage; a stage but the last ends with pooling.
        strided: the first convolution, alone in its stage, takes every second position instead: as many parameters
            and three quarters of the time, for a little accuracy.
        form: how the digits are seen, instead of as they are.
    """

    def __init__(self, *stages: Sequence[int], strided: bool = False, form: NormalForm | None = None) -> None:
        super().__init__()
        self.form = form
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
        maps = x = self.form(x) if self.form else x
        for i, layer in enumerate(self.features):
            if i == self.before_last_stage:
                maps = x
            x = layer(x)
        return over_places(x), maps


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
    "mlp": Mlp,
} | {
    f"cnn-large-{name}": lambda form=form: Cnn([24], [48, 48], [96, 96], form=NormalForm(**form))
    for name, form in NORMAL_FORMS.items()
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
