"""The networks: sizes, shapes, and the scaling of their input."""

import pytest
import torch

from training.config import ConfigError
from training.networks import DEVIATION, MEAN, NETWORKS, build, multiplications, normalize, parameter_count


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mlp", 22_270),
        ("cnn", 61_946),
        ("cnn-small", 7_182),
        ("cnn-large", 158_674),
        ("cnn-speed", 61_946),
        ("cnn-fast", 71_514),
        ("cnn-5x5", 308_090),
        ("cnn-7x7", 581_506),
    ],
)
def test_number_of_parameters(name, parameters):
    assert parameter_count(build(name)) == parameters


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [2, 7])
def test_logits_have_one_row_per_image(name, batch):
    pixels = torch.randint(0, 256, (batch, 28, 28), dtype=torch.uint8)
    assert build(name)(normalize(pixels)).shape == (batch, 10)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_the_head_of_the_features(name):
    network = build(name).eval()
    inputs = normalize(torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8))
    features = network.features(inputs)
    assert features.vector.shape == (3, network.head.in_features)
    assert torch.equal(network.head(features.vector), network(inputs))


@pytest.mark.parametrize(("name", "channels"), [("cnn", 32), ("cnn-speed", 32), ("cnn-small", 12), ("cnn-large", 48)])
def test_networks_with_stages_give_the_maps_before_the_last_stage(name, channels):
    features = build(name).features(normalize(torch.zeros(2, 28, 28)))
    assert features.maps.shape == (2, channels, 7, 7)


def test_cnn_fast_cuts_the_border_off_its_maps_and_takes_fewer_multiplications():
    assert build("cnn-fast").features(normalize(torch.zeros(2, 28, 28))).maps.shape == (2, 32, 5, 5)
    assert multiplications(build("cnn-fast")) < 0.6 * multiplications(build("cnn-speed"))


@pytest.mark.parametrize("name", ["mlp", "cnn-5x5", "cnn-7x7"])
def test_networks_without_stages_give_no_maps(name):
    assert build(name).features(normalize(torch.zeros(2, 28, 28))).maps is None


def test_normalize_scales_like_the_tutorial():
    pixels = torch.arange(784, dtype=torch.int64).remainder(256).to(torch.uint8).view(1, 28, 28)
    expected = (pixels / 255 - MEAN) / DEVIATION
    torch.testing.assert_close(normalize(pixels).squeeze(1), expected, atol=2e-6, rtol=0)


def test_scaling_constants_are_those_of_the_training_images():
    from training.data.digits import load

    pixels = load("mnist").train.images / 255
    assert round(pixels.mean().item(), 4) == MEAN
    assert round(pixels.std().item(), 4) == DEVIATION


def test_unknown_name_suggests_the_most_similar_one():
    with pytest.raises(ConfigError, match="--model cnnn: unknown name; did you mean cnn"):
        build("cnnn")


def test_multiplications_are_counted_layer_by_layer():
    network = build("mlp")
    assert multiplications(network) == 784 * 28 + 28 * 10
    assert network.training
    # 5x5 at 28x28, 3x3 at 14x14, two 3x3 at 7x7, and the head.
    convolutions = 784 * 25 * 16 + 196 * 9 * 16 * 32 + 49 * 9 * (32 * 64 + 64 * 64)
    assert multiplications(build("cnn")) == convolutions + 128 * 10
