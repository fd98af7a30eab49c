"""Style augmentation: each kind of change does what its name says and nothing else."""

from __future__ import annotations

import pytest
import torch

from training.augment import style
from training.augment.style import bar, bitmap, coarse, pen, restyle, upstroke, width


@pytest.fixture(scope="module")
def digits(mnist):
    return mnist.train.take(torch.arange(500))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def extent(images, dim):
    """Return the number of columns (``dim`` 1) or rows (``dim`` 2) from the first to the last with ink."""
    ink = (images > 100).any(dim=dim)
    return ink.shape[1] - ink.int().argmax(dim=1) - ink.flip(1).int().argmax(dim=1)


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_the_given_share_of_the_images_changes(digits, share):
    before = digits.images.clone()
    changed = restyle(digits.images, digits.labels, share, seeded())
    assert torch.equal(digits.images, before)
    assert changed.shape == before.shape
    assert changed.min() >= 0
    assert changed.max() <= 255
    touched = (changed != before).any(dim=(1, 2)).float().mean().item()
    # Three kinds of change are drawn independently for each image, and one more for half as many. The other two apply
    # to ones only.
    assert touched == pytest.approx(1 - (1 - share) ** 3 * (1 - share / 2), abs=0.07)
    assert torch.equal(changed, restyle(digits.images, digits.labels, share, seeded()))


def test_brightest_ink_stays_at_full_value(digits):
    changed = restyle(digits.images, digits.labels, 1, seeded())
    assert (changed.amax(dim=(1, 2)) > 254).all()


def test_only_ones_get_an_upstroke(digits, monkeypatch):
    for name in ("bar", "width", "pen", "coarse", "bitmap"):
        monkeypatch.setattr(style, name, lambda images, _: images)
    changed = restyle(digits.images, digits.labels, 1, seeded())
    touched = (changed != digits.images).any(dim=(1, 2))
    ones = digits.labels == 1
    assert touched[ones].all()
    assert (changed[~ones] - digits.images[~ones]).abs().max() <= 255 / digits.images[~ones].amax(dim=(1, 2)).min()


def test_upstroke_leads_from_the_top_to_the_left():
    images = torch.zeros(40, 28, 28)
    images[:, 4:24, 13:15] = 255
    drawn = upstroke(images, seeded()) - images
    ink = drawn > 100
    assert ink[:, :20, :13].any(dim=(1, 2)).all()
    assert not ink[:, :, 17:].any()
    assert not ink[:, 16:].any()


def test_width_changes_and_height_does_not(digits):
    images = digits.images.float()
    changed = width(images, seeded())
    factor = extent(changed, 1) / extent(images, 1)
    assert factor.min() < 0.75
    assert factor.max() > 1.2
    assert (extent(changed, 2) - extent(images, 2)).abs().float().mean() < 0.2


def test_bar_is_as_wide_as_other_digits(digits):
    ones = digits.images[digits.labels == 1].float()
    changed = bar(ones, seeded())
    widths = extent(changed, 1).float()
    assert ((widths > 3) & (widths < 18)).all()
    assert widths.mean() == pytest.approx(9.5, abs=1.5)
    assert (extent(changed, 2) - extent(ones, 2)).abs().float().mean() < 0.5


def test_width_keeps_the_centre_of_mass(digits):
    images = digits.images.float().roll(2, dims=2)
    columns = torch.arange(28) + 0.5

    def centre(images):
        return (images.sum(dim=1) * columns).sum(dim=1) / images.sum(dim=(1, 2))

    assert (centre(width(images, seeded())) - centre(images)).abs().max() < 1


def test_pen_makes_strokes_broader_or_thinner(digits):
    images = digits.images.float()
    ink = pen(images, seeded()).sum(dim=(1, 2)) / images.sum(dim=(1, 2))
    assert ink.min() < 0.8
    assert ink.max() > 1.4


def test_coarse_images_have_less_detail_and_as_much_ink(digits, monkeypatch):
    monkeypatch.setattr(style, "COARSE_CONTRAST", (1, 1))
    images = digits.images.float()
    changed = coarse(images, seeded())

    def detail(images):
        return (images[:, 1:] - images[:, :-1]).abs().amax(dim=(1, 2))

    assert (detail(changed) < 0.8 * detail(images)).float().mean() > 0.9
    assert changed.sum() == pytest.approx(images.sum().item(), rel=0.02)


def test_bitmap_is_black_and_white(digits, monkeypatch):
    monkeypatch.setattr(style, "BITMAP_SIDE", (28, 29))  # so that nothing is enlarged
    assert bitmap(digits.images[:50].float(), seeded()).unique().tolist() == [0, 255]


@pytest.mark.parametrize("seed", range(3))
def test_bitmap_keeps_the_ink_of_each_digit(digits, seed):
    images = digits.images[:50].float()
    changed = bitmap(images, seeded(seed)).clamp(0, 255)
    assert changed.amax(dim=(1, 2)).min() > 200
    assert ((changed - images).abs().mean(dim=(1, 2)) < 45).all()


def test_bitmap_of_an_empty_image_is_empty():
    assert not bitmap(torch.zeros(3, 28, 28), seeded()).any()
