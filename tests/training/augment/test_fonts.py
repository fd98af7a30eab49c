"""Characters drawn from fonts in MNIST's form, and training with them."""

from __future__ import annotations

import shutil
import string
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from export.graph import ServingGraph
from tests.support import font_file
from tests.training.conftest import NoPlots
from tests.training.support import first
from training import checkpoint
from training.augment.fonts import find_fonts, frame_as_mnist, render_characters
from training.config import TrainConfig
from training.loop.train import train
from training.networks import build, normalize
from training.trust import novelty as calibration
from training.trust.calibrate import Calibration, calibrate


def test_framing_a_digit_of_mnist_changes_nothing(digits):
    """MNIST's digits were framed in the same way."""
    same = [np.array_equal(frame_as_mnist(Image.fromarray(digit)), digit) for digit in digits[:200]]
    assert np.mean(same) > 0.8  # A few digits of MNIST do not fill the box of 20x20.


def test_characters_fill_the_box_with_full_ink_and_are_centred():
    drawn = render_characters([font_file("DejaVuSans"), font_file("cmr10")], string.ascii_letters, 104, seed=0).numpy()
    assert drawn.dtype == np.uint8
    assert (drawn.max(axis=(1, 2)) == 255).all()
    places = np.arange(28)
    for axis in (1, 2):
        across = drawn.sum(axis=3 - axis)
        assert (np.count_nonzero(across, axis=1) <= 20).all()
        middle = across @ places / across.sum(axis=1)
        assert np.median(np.abs(middle - 14)) <= 0.5


def test_same_seed_gives_the_same_characters():
    fonts = [font_file("DejaVuSans")]
    assert torch.equal(render_characters(fonts, "ab", 6, seed=1), render_characters(fonts, "ab", 6, seed=1))
    assert not torch.equal(render_characters(fonts, "ab", 6, seed=1), render_characters(fonts, "ab", 6, seed=2))


def test_empty_canvas_gives_an_empty_image():
    assert not frame_as_mnist(Image.new("L", (50, 50))).any()


def test_find_fonts_returns_one_readable_regular_latin_font_of_each_folder(tmp_path):
    for folder in ("plain", "bold", "damaged", "symbols", "empty"):
        (tmp_path / folder).mkdir()
    shutil.copy(font_file("DejaVuSans"), tmp_path / "plain" / "SANS.TTF")
    shutil.copy(font_file("DejaVuSans-Bold"), tmp_path / "bold" / "a-latin-700-normal.ttf")
    shutil.copy(font_file("DejaVuSans"), tmp_path / "bold" / "a-latin-400-normal.ttf")
    (tmp_path / "damaged" / "b.ttf").write_bytes(b"not a font")
    shutil.copy(font_file("STIXSizOneSymReg"), tmp_path / "symbols")
    assert [path.relative_to(tmp_path).as_posix() for path in find_fonts(tmp_path)] == [
        "bold/a-latin-400-normal.ttf",
        "plain/SANS.TTF",
    ]


FONTS = ["DejaVuSans", "cmr10", "cmtt10", "STIXGeneral"]


@pytest.fixture(scope="module")
def few(mnist):
    """MNIST with few images, so that training takes seconds."""
    return replace(
        mnist, train=first(mnist.train, 4000), validation=first(mnist.validation, 1000), test=first(mnist.test, 1000)
    )


def trained(few, folder, **settings):
    """Return a cnn after a training of a few seconds."""

    def calibrate_quickly(network, splits, *more):
        """Calibrate on few images, because no test uses the calibration of these runs."""
        return calibrate(network, replace(splits, train=first(splits.train, 64)), *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.loop.record.calibrate", calibrate_quickly)
        patch.setattr("training.loop.train.PlotProcess", NoPlots)
        patch.setattr("training.loop.extras.FONT_DIGITS", 1000)
        train(TrainConfig(model="cnn", epochs=2, subset=4000, **settings), few, folder)
    network = build("cnn")
    network.load_state_dict(checkpoint.load(folder / "model.pt")["weights"])
    return network.eval()


@pytest.fixture(scope="module")
def plain(few, tmp_path_factory):
    """A network that was trained without fonts."""
    return trained(few, tmp_path_factory.mktemp("plain") / "run")


def test_training_with_fonts_reads_digits_of_fonts_better(plain, few, tmp_path):
    for name in FONTS:
        (tmp_path / name).mkdir()
        shutil.copy(font_file(name), tmp_path / name)
    with_fonts = trained(few, tmp_path / "run", fonts=str(tmp_path))
    images = render_characters([font_file(name) for name in FONTS], string.digits, 1000, seed=9)
    labels = torch.arange(1000) % 10

    def accuracy(network):
        with torch.inference_mode():
            return float((network(normalize(images)).argmax(dim=1) == labels).float().mean())

    assert accuracy(with_fonts) > accuracy(plain) + 0.1


def rejected_share(found, network, images):
    with torch.inference_mode():
        features = network.features(normalize(images))
        scores = found.novelty(features, network.head(features.vector) / found.temperature)
    return float((scores > found.threshold).float().mean())


def test_calibration_with_fonts_rejects_more_letters_that_look_like_digits(plain, few, monkeypatch):
    monkeypatch.setattr(calibration, "STEPS", 300)
    fonts = [font_file(name) for name in FONTS]
    with_fonts, without = calibrate(plain, few, 0, fonts), calibrate(plain, few, 0)
    letters = render_characters(fonts, "BDGQSZbdg", 200, seed=5)
    numerals = render_characters(fonts, string.digits, 200, seed=5)
    rejected = rejected_share(with_fonts, plain, letters)
    assert rejected > rejected_share(without, plain, letters) + 0.1
    assert rejected_share(with_fonts, plain, numerals) < 0.1
    # The saved and loaded calibration and the exported graph give the same scores.
    loaded = Calibration.of(with_fonts.state())
    *_, novelty = ServingGraph(plain, loaded)(letters)
    assert rejected_share(loaded, plain, letters) == rejected
    assert float((novelty > with_fonts.threshold).float().mean()) == rejected
