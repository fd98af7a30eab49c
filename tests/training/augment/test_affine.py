"""Affine augmentation: how far images change, and what stays the same."""

from __future__ import annotations

import pytest
import torch

from training.augment import affine
from training.augment.affine import augment

DEVIATIONS = ("ROTATION_DEVIATION", "SHEAR_DEVIATION", "LOG_SCALE_DEVIATION", "SHIFT_DEVIATION")


@pytest.fixture(scope="module")
def images(mnist):
    return mnist.train.images[:2000]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def only(monkeypatch):
    """Return a function that turns off every kind of change except one, and gives that one a deviation."""

    def only(kept, deviation):
        for name in DEVIATIONS:
            monkeypatch.setattr(affine, name, deviation if name == kept else 0)
        monkeypatch.setitem(augment.__kwdefaults__, "contrast", 1)

    return only


def centre(images):
    """Return the centre of mass of each image: (rows, columns)."""
    weights = images.double() / images.double().sum(dim=(1, 2), keepdim=True)
    positions = torch.arange(28, dtype=torch.float64)
    return (weights.sum(dim=2) * positions).sum(dim=1), (weights.sum(dim=1) * positions).sum(dim=1)


def spread(images):
    """Return the variance of the ink of each image around its centre: (rows, columns)."""
    weights = images.double() / images.double().sum(dim=(1, 2), keepdim=True)
    squares = torch.arange(28, dtype=torch.float64) ** 2
    row, column = centre(images)
    return (weights.sum(dim=2) * squares).sum(dim=1) - row**2, (weights.sum(dim=1) * squares).sum(dim=1) - column**2


@pytest.mark.parametrize("count", [1, 7])
def test_result_has_the_shape_and_the_range_of_the_images(images, count):
    changed = augment(images[:count])
    assert changed.shape == (count, 28, 28)
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 255.001


def test_uint8_and_float_images_give_the_same_result(images):
    assert torch.equal(augment(images, seeded()), augment(images.float(), seeded()))


def test_given_images_are_not_modified(images):
    before = images.clone()
    augment(images)
    assert torch.equal(images, before)


def test_amount_of_ink_hardly_changes(images):
    changed = augment(images, seeded())
    ink_before, ink_after = images.float().mean(dim=(1, 2)), changed.mean(dim=(1, 2))
    assert ink_after.mean() == pytest.approx(ink_before.mean().item(), rel=0.03)
    # The largest scale factors are e^±0.16 in each direction.
    assert (ink_after / ink_before).min() > 0.6
    assert (ink_after / ink_before).max() < 1.5


def test_contrast_restores_sharp_edges(images):
    """Resampling alone would leave less than half as many pixels with full ink."""
    for strength in (0.3, 1.0):
        changed = augment(images, seeded(), strength=strength)
        for low, high in ((250, 256), (20, 235)):
            before, after = (((low < pixels) & (pixels < high)).float().mean() for pixels in (images.float(), changed))
            assert after == pytest.approx(before.item(), rel=0.25)


def test_hardly_any_ink_leaves_the_image(images):
    """If little ink reaches the outermost pixels, little can have left the image."""
    changed = augment(images, seeded())
    frame = changed.sum() - changed[:, 1:-1, 1:-1].sum()
    assert frame / changed.sum() < 0.005


def test_same_seed_gives_the_same_images_and_another_seed_does_not(images):
    assert torch.equal(augment(images, seeded()), augment(images, seeded()))
    assert not torch.equal(augment(images, seeded()), augment(images, seeded(1)))


def test_each_image_gets_its_own_random_change(images):
    changed = augment(images[:1].expand(50, -1, -1), seeded())
    assert len({image.numpy().tobytes() for image in changed}) == 50


def test_deviations_of_zero_leave_the_images_unchanged(images, only):
    only(None, 0)
    torch.testing.assert_close(augment(images), images.float(), atol=0.01, rtol=0)


def test_shift_moves_by_at_most_two_deviations(images, only):
    only("SHIFT_DEVIATION", 1.0)
    for before, after in zip(centre(images), centre(augment(images, seeded())), strict=True):
        moved = after - before
        assert moved.abs().max() < 2.1
        assert moved.std() > 0.8
        assert moved.mean().abs() < 0.1


def test_height_and_width_scale_independently(images, only):
    only("LOG_SCALE_DEVIATION", 0.1)
    before, after = spread(images), spread(augment(images, seeded()))
    rows, columns = ((b / a).log() / 2 for b, a in zip(before, after, strict=True))
    for factors in (rows, columns):
        assert factors.std() == pytest.approx(0.088, abs=0.03)  # a normal draw of deviation 0.1, cut off at 0.2
        assert factors.abs().max() < 0.35  # 0.2, and interpolation widens thin strokes
    assert torch.corrcoef(torch.stack([rows, columns]))[0, 1].abs() < 0.1


def test_rotation_keeps_the_total_spread_of_the_ink(images, only):
    only("ROTATION_DEVIATION", 0.3)
    changed = augment(images, seeded())
    before, after = sum(spread(images)), sum(spread(changed))
    torch.testing.assert_close(after, before, atol=1.5, rtol=0.03)
    assert (changed - images).abs().mean() > 5


def test_strength_scales_every_change(images):
    torch.testing.assert_close(augment(images, strength=0), images.float(), atol=0.01, rtol=0)
    light, full = ((augment(images, seeded(), strength=s) - images).abs().mean() for s in (0.25, 1.0))
    assert 0 < light < full / 2


def test_elastic_change_moves_parts_of_an_image_independently(images, only):
    """Dots in two corners move independently, by at most two deviations."""
    only(None, 0)
    dots = torch.zeros(500, 28, 28)
    dots[:, 6, 6] = dots[:, 21, 21] = 255
    bent = augment(dots, seeded(), elastic=0.5)
    upper = torch.arange(28)[:, None] < 14
    first, second = (torch.stack(centre(bent * half)) for half in (upper, ~upper))
    first, second = first - 6, second - 21
    for moved in (first, second):
        assert moved.std() > 0.2
        assert moved.abs().max() < 1.6
    assert torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].abs() < 0.2
