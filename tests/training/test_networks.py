import pytest
import torch

from training.config import ConfigError
from training.networks import DEVIATION, MEAN, NETWORKS, build, normalize, parameter_count


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mlp", 22_270),
        ("cnn", 61_946),
        ("cnn-small", 7_182),
        ("cnn-large", 158_674),
        ("cnn-speed", 61_946),
        ("cnn-5x5", 308_090),
        ("cnn-7x7", 581_506),
    ],
)
def test_size(name, parameters):
    assert parameter_count(build(name)) == parameters


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [2, 7])
def test_shape(name, batch):
    pixels = torch.randint(0, 256, (batch, 28, 28), dtype=torch.uint8)
    assert build(name)(normalize(pixels)).shape == (batch, 10)


def test_normalize_is_the_tutorials_scaling():
    pixels = torch.arange(784, dtype=torch.int64).remainder(256).to(torch.uint8).view(1, 28, 28)
    expected = (pixels / 255 - MEAN) / DEVIATION
    torch.testing.assert_close(normalize(pixels).squeeze(1), expected, atol=2e-6, rtol=0)


def test_scaling_constants_are_those_of_the_data():
    from training.data.digits import load

    pixels = load("mnist").train.images / 255
    assert round(pixels.mean().item(), 4) == MEAN
    assert round(pixels.std().item(), 4) == DEVIATION


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'cnn'"):
        build("cnnn")
