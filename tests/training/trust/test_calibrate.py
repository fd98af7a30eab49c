"""Calibration of a finished network: temperature, novelty score and the acceptance thresholds."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest
import torch

from tests.support import font_file
from tests.training.support import equal, first
from training.augment.outliers import FONT_SIGNS
from training.networks import NETWORKS, Features, build, normalize
from training.trained import read
from training.trust import examples, novelty
from training.trust.acceptance import Scores, Thresholds
from training.trust.calibrate import LEAST_JUDGED, Calibration, calibrate, judged_digits
from training.trust.examples import digits_and_outliers
from training.trust.novelty import LARGEST, Novelty, Outputs, fit_novelty
from training.trust.temperature import fit_temperature

FONTS = ["DejaVuSans", "cmr10"]


@pytest.fixture
def quick(monkeypatch):
    """Fit the score with a few steps."""
    monkeypatch.setattr(novelty, "STEPS", 30)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_fitted_temperature_restores_scaled_logits(temperature):
    """Labels are drawn from the softmax of the logits, so the right temperature of these logits is 1."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 10, generator=generator) * 2
    labels = logits.softmax(dim=1).multinomial(1, generator=generator).squeeze(1)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("fonts", [(), FONTS])
@pytest.mark.usefixtures("quick")
def test_every_network_can_be_calibrated(small, model, fonts):
    torch.manual_seed(0)
    network = build(model)
    found = calibrate(network, small, 0, [font_file(font) for font in fonts])
    features = network.eval().features(normalize(small.test.images))
    scores = found.novelty(features, network.head(features.vector) / found.temperature)
    assert scores.shape == (300,)
    assert found.novelty.maps == (features.maps.shape[1] if fonts and features.maps is not None else 0)


@pytest.mark.usefixtures("quick")
def test_equal_seeds_give_equal_calibrations_and_leave_the_network_and_torchs_seed(small):
    torch.manual_seed(0)
    network = build("mlp")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    one, two, other = (calibrate(network, small, seed) for seed in (0, 0, 1))
    assert network.training
    assert equal(network.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert (one.temperature, one.threshold, one.confidence) == (two.temperature, two.threshold, two.confidence)
    assert equal(one.novelty.state_dict(), two.novelty.state_dict())
    assert not equal(one.novelty.state_dict(), other.novelty.state_dict())


@pytest.mark.usefixtures("quick")
def test_last_training_images_stand_in_for_a_validation_set(small):
    torch.manual_seed(0)
    network = build("mlp")
    without = calibrate(network, replace(small, validation=first(small.validation, 0)), 0)
    same = calibrate(network, replace(small, validation=small.train), 0)
    assert (without.temperature, without.threshold) == (same.temperature, same.threshold)


@pytest.mark.parametrize("count", [1, 3])
def test_training_images_join_a_small_validation_set(small, teacher, count):
    """The thresholds of a few images alone would reject most right predictions."""
    few = replace(small, validation=first(small.validation, count))
    judged = judged_digits(few)
    assert len(judged) == LEAST_JUDGED
    assert torch.equal(judged.images[:count], few.validation.images)
    network = read(str(teacher)).network.eval()
    found = calibrate(network, few, 0)
    with torch.no_grad():
        features = network.features(normalize(small.test.images))
        logits = network.head(features.vector) / found.temperature
        scores = Scores.of(logits.softmax(dim=1), found.novelty(features, logits), small.test.labels)
    right = Scores(*(each[scores.is_right] for each in scores))
    assert sum(Thresholds(found.threshold, found.confidence).false_rejections(right).values()) < 0.1
    # Of a single image, all or nothing is rejected.
    assert count > 1 or {*found.rejected.values()} <= {0.0, 1.0}


def test_saved_calibration_is_loaded_with_the_same_numbers():
    torch.manual_seed(0)
    calibration = Calibration(1.5, Novelty(20, maps=3), 2.5, 0.9, {"novelty": 0.01})
    state = calibration.state()
    loaded = Calibration.of(state)
    assert (loaded.temperature, loaded.threshold, loaded.confidence) == (1.5, 2.5, 0.9)
    assert loaded.rejected == {"novelty": 0.01}
    assert equal(loaded.novelty.state_dict(), calibration.novelty.state_dict())
    assert not loaded.novelty.training
    del state["confidence"], state["rejected"]
    assert Calibration.of(state).confidence is None, "a run of version 0.1"


def test_larger_scores_of_earlier_versions_are_loaded():
    torch.manual_seed(0)
    novelty = Novelty(138, 32, strokes=32, hidden=128).eval()
    loaded = Calibration.of(Calibration(1.0, novelty, 0.0).state()).novelty
    vector, maps, logits = torch.rand(5, 128), torch.rand(5, 32, 7, 7), torch.rand(5, 10)
    torch.testing.assert_close(loaded(Features(vector, maps), logits), novelty(Features(vector, maps), logits))


def test_score_separates_images():
    """The features of outliers are shifted from those of digits, and all have a large offset and scale."""
    generator = torch.Generator().manual_seed(0)
    digits, outliers = torch.randn(2, 2000, 6, generator=generator) * 100 + 5000
    outliers = outliers + 800
    features = torch.cat([digits, outliers])
    outputs = Outputs(novelty.Features(features), torch.randn(4000, 10, generator=generator))
    targets = torch.cat([torch.zeros(2000), torch.ones(2000)])
    torch.manual_seed(0)
    score = fit_novelty(outputs, targets, generator)
    known, others = outputs.split(2000)
    assert (score(*others) > score(*known).quantile(0.99)).float().mean() > 0.99
    assert score(*others).max() <= LARGEST


def test_digits_and_outliers_are_images_in_the_stated_numbers(small, monkeypatch):
    for name, value in (("CLEAN_DIGITS", 100), ("DISTORTED_DIGITS", 50), ("OUTLIERS", 80)):
        monkeypatch.setattr(examples, name, value)
    digits, others = digits_and_outliers(small.train, [], 0, torch.Generator().manual_seed(0))
    assert digits.shape == (150, 28, 28)
    assert others.shape == (80, 28, 28)
    assert digits.dtype == others.dtype == torch.uint8
    unchanged = {image.numpy().tobytes() for image in small.train.images}
    assert sum(image.numpy().tobytes() in unchanged for image in digits) >= 100


@pytest.mark.parametrize("fonts", [[], ["cmr10"]])
def test_drawing_reports_its_share_until_the_end(small, monkeypatch, fonts):
    for name in ("OUTLIERS", "OUTLIERS_BESIDE_FONTS", "FONT_LETTERS", "FONT_DIGITS"):
        monkeypatch.setattr(examples, name, 64)
    monkeypatch.setattr(examples, "STYLE_BATCH", 4)
    shares = []
    digits_and_outliers(
        small.train, [font_file(name) for name in fonts], 0, torch.Generator().manual_seed(0), shares.append
    )
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.98 < shares[-1] <= 1
    assert sum(share > 0.87 for share in shares) > 10, "the style augmentation at the end reports too"


def test_fonts_add_digits_letters_and_signs(small, monkeypatch):
    monkeypatch.setattr(examples, "FONT_DIGITS", 100)
    drawn = []
    render = examples.render_characters

    def kept(fonts, characters, count, *others):
        drawn.append((characters, count))
        return render(fonts, characters, count, *others)

    monkeypatch.setattr(examples, "render_characters", kept)
    digits, others = digits_and_outliers(small.train, [font_file("cmr10")], 0, torch.Generator().manual_seed(0))
    characters = string.ascii_letters + FONT_SIGNS
    assert drawn == [(string.digits, 100), (characters, 256)], "at most as many as there are digits"
    assert (len(digits), len(others)) == (256 + 100, 256 + 256)
