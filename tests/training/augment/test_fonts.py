"""Characters of fonts as MNIST has its digits, and a novelty score that has seen letters."""

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
from training import checkpoint
from training.augment.fonts import find_fonts, framed, render_characters
from training.config import TrainConfig
from training.loop.train import train
from training.networks import build, normalize
from training.trust import novelty as calibration
from training.trust.calibrate import Calibration, calibrate


def test_framing_leaves_digits_of_mnist_as_they_are(digits):
    """It is how they were made."""
    same = [np.array_equal(framed(Image.fromarray(digit)), digit) for digit in digits[:200]]
    assert np.mean(same) > 0.8  # of some the box was other than the ink


def test_glyphs_are_in_the_box_at_full_ink_about_the_middle():
    drawn = render_characters([font_file("DejaVuSans"), font_file("cmr10")], string.ascii_letters, 104, seed=0).numpy()
    assert drawn.dtype == np.uint8
    assert (drawn.max(axis=(1, 2)) == 255).all()
    places = np.arange(28)
    for axis in (1, 2):
        across = drawn.sum(axis=3 - axis)
        assert (np.count_nonzero(across, axis=1) <= 20).all()
        middle = across @ places / across.sum(axis=1)
        assert np.median(np.abs(middle - 14)) <= 0.5


def test_glyphs_are_a_function_of_the_seed():
    fonts = [font_file("DejaVuSans")]
    assert torch.equal(render_characters(fonts, "ab", 6, seed=1), render_characters(fonts, "ab", 6, seed=1))
    assert not torch.equal(render_characters(fonts, "ab", 6, seed=1), render_characters(fonts, "ab", 6, seed=2))


def test_nothing_drawn_is_an_empty_frame():
    assert not framed(Image.new("L", (50, 50))).any()


def test_one_regular_font_a_folder_and_only_readable_latin_ones(tmp_path):
    for folder in ("plain", "bold", "damaged", "symbols", "empty"):
        (tmp_path / folder).mkdir()
    shutil.copy(font_file("DejaVuSans"), tmp_path / "plain")
    shutil.copy(font_file("DejaVuSans-Bold"), tmp_path / "bold" / "a-latin-700-normal.ttf")
    shutil.copy(font_file("DejaVuSans"), tmp_path / "bold" / "a-latin-400-normal.ttf")
    (tmp_path / "damaged" / "b.ttf").write_bytes(b"no font")
    shutil.copy(font_file("STIXSizOneSymReg"), tmp_path / "symbols")
    assert [path.relative_to(tmp_path).as_posix() for path in find_fonts(tmp_path)] == [
        "bold/a-latin-400-normal.ttf",
        "plain/DejaVuSans.ttf",
    ]


FONTS = ["DejaVuSans", "cmr10", "cmtt10", "STIXGeneral"]


@pytest.fixture(scope="module")
def few(mnist):
    """Images that a network is trained on in seconds."""
    return replace(
        mnist, train=mnist.train.take(torch.arange(4000)), validation=mnist.validation.take(torch.arange(1000))
    )


def trained(few, folder, **settings):
    """A cnn of a few seconds."""
    train(TrainConfig(model="cnn", epochs=2, subset=4000, **settings), few, folder)
    network = build("cnn")
    network.load_state_dict(checkpoint.load(folder / "model.pt")["weights"])
    return network.eval()


@pytest.fixture(scope="module")
def plain(few, tmp_path_factory):
    """A network that knows no fonts."""
    return trained(few, tmp_path_factory.mktemp("taught") / "run")


def test_digits_of_fonts_are_learnt(plain, few, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "STEPS", 1)  # not looked at here
    for name in FONTS:
        (tmp_path / name).mkdir()
        shutil.copy(font_file(name), tmp_path / name)
    knowing = trained(few, tmp_path / "run", fonts=str(tmp_path))
    written, labels = (
        render_characters([font_file(name) for name in FONTS], string.digits, 1000, seed=9),
        torch.arange(1000) % 10,
    )
    with torch.inference_mode():
        right, otherwise = (
            float((network(normalize(written)).argmax(dim=1) == labels).float().mean()) for network in (knowing, plain)
        )
    assert right > otherwise + 0.1


def refused(found, network, images):
    with torch.inference_mode():
        features = network.features(normalize(images))
        scores = found.novelty(features, network.head(features.vector) / found.temperature)
    return float((scores > found.threshold).float().mean())


def test_fonts_teach_to_refuse_letters_that_look_like_digits(plain, few, monkeypatch):
    monkeypatch.setattr(calibration, "STEPS", 300)
    fonts = [font_file(name) for name in FONTS]
    knowing, unknowing = calibrate(plain, few, 0, fonts), calibrate(plain, few, 0)
    letters, numbers = (
        render_characters(fonts, "BDGQSZbdg", 200, seed=5),
        render_characters(fonts, string.digits, 200, seed=5),
    )
    assert refused(knowing, plain, letters) > refused(unknowing, plain, letters) + 0.1
    assert refused(knowing, plain, numbers) < 0.1
    # Kept and exported, it is the same score.
    again = Calibration.of(knowing.state())
    *_, novelty = ServingGraph(plain, again)(letters)
    assert refused(again, plain, letters) == refused(knowing, plain, letters)
    assert float((novelty > knowing.threshold).float().mean()) == refused(knowing, plain, letters)
