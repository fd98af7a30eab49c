import pytest
import torch
import torch.nn.functional as F

from training import data
from training.config import ConfigError
from training.models import DEVIATION, MEAN, NETWORKS, NormalForm, build, normalize, parameter_count


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mlp", 22_270),
        ("cnn", 61_946),
        ("cnn-small", 7_182),
        ("cnn-large", 158_674),
        ("cnn-large-square", 158_674),
        ("cnn-speed", 61_946),
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
    pixels = data.load("mnist").train.images / 255
    assert round(pixels.mean().item(), 4) == MEAN
    assert round(pixels.std().item(), 4) == DEVIATION


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'cnn'"):
        build("cnnn")


def moments(inputs):
    """Slant, and standard deviation of the ink across and down, of network input."""
    ink = (inputs * DEVIATION + MEAN).squeeze(1)
    ink = ink / ink.sum(dim=(1, 2), keepdim=True)
    place = torch.arange(28.0)
    rows = place - (ink.sum(2) @ place)[:, None]
    columns = place - (ink.sum(1) @ place)[:, None]
    down, across = (ink.sum(2) * rows**2).sum(1), (ink.sum(1) * columns**2).sum(1)
    return torch.einsum("nij,ni,nj->n", ink, rows, columns) / down, across.sqrt(), down.sqrt()


@pytest.fixture(scope="module")
def digits():
    """Network input of MNIST digits, no 1 among them: they have hardly a width."""
    test = data.load("mnist").test
    return normalize(test.images[test.labels != 1][:200])


def test_normal_form_is_upright_and_of_one_size(digits):
    before, after = moments(digits), moments(NormalForm(width=4.0, height=5.0)(digits))
    for measured, wanted, within in zip(after, (0.0, 4.0, 5.0), (0.05, 0.4, 0.4), strict=True):
        assert (measured - wanted).abs().quantile(0.95) < within
    assert before[0].abs().max() > 0.5
    assert before[1].std() > 5 * after[1].std()


def test_normal_form_undoes_a_slant_and_a_shift(digits):
    moved = torch.tensor([[1, 0.3, 0.1], [0, 1, -0.05]]).expand(len(digits), 2, 3)
    grid = F.affine_grid(moved, list(digits.shape), align_corners=False)
    slanted = F.grid_sample(digits, grid, padding_mode="border", align_corners=False)
    form = NormalForm()
    assert (form(slanted) - form(digits)).abs().mean() < 0.25 * (slanted - digits).abs().mean()


def test_normal_form_of_nothing_is_nothing():
    empty = normalize(torch.zeros(2, 28, 28))
    torch.testing.assert_close(NormalForm(width=4.0, height=4.0)(empty), empty)
