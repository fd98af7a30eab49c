"""Augmentation: images change, digits stay digits."""

from __future__ import annotations

import pytest
import torch

from training.augment import affine as module
from training.augment.affine import augment

SCALES = ("ROTATION", "SHEAR", "LOG_SCALE", "SHIFT")


@pytest.fixture(scope="module")
def images(mnist):
    return mnist.train.images[:2000]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def only(monkeypatch):
    """Switch all kinds of change off but the one named."""

    def only(kept, scale):
        for name in SCALES:
            monkeypatch.setattr(module, name, scale if name == kept else 0)
        monkeypatch.setitem(augment.__kwdefaults__, "contrast", 1)

    return only


def centre(images):
    """Centre of mass of each image as (row, column)."""
    weights = images.double() / images.double().sum(dim=(1, 2), keepdim=True)
    positions = torch.arange(28, dtype=torch.float64)
    return (weights.sum(dim=2) * positions).sum(dim=1), (weights.sum(dim=1) * positions).sum(dim=1)


def spread(images):
    """Variance of the ink of each image about its centre: (rows, columns)."""
    weights = images.double() / images.double().sum(dim=(1, 2), keepdim=True)
    squares = torch.arange(28, dtype=torch.float64) ** 2
    row, column = centre(images)
    return (weights.sum(dim=2) * squares).sum(dim=1) - row**2, (weights.sum(dim=1) * squares).sum(dim=1) - column**2


@pytest.mark.parametrize("count", [1, 7])
def test_shape_and_units(images, count):
    changed = augment(images[:count])
    assert changed.shape == (count, 28, 28)
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 255.001


def test_bytes_and_floats_are_treated_alike(images):
    assert torch.equal(augment(images, seeded()), augment(images.float(), seeded()))


def test_the_given_images_are_left_as_they_are(images):
    before = images.clone()
    augment(images)
    assert torch.equal(images, before)


def test_ink_stays(images):
    changed = augment(images, seeded())
    ink_before, ink_after = images.float().mean(dim=(1, 2)), changed.mean(dim=(1, 2))
    assert ink_after.mean() == pytest.approx(ink_before.mean().item(), rel=0.03)
    # The widest scalings are e^±0.16 each way.
    assert (ink_after / ink_before).min() > 0.6
    assert (ink_after / ink_before).max() < 1.5


def test_edges_stay_as_steep(images):
    """Resampling alone would leave less than half as many pixels full of ink."""
    for strength in (0.3, 1.0):
        changed = augment(images, seeded(), strength=strength)
        for low, high in ((250, 256), (20, 235)):
            before, after = (((low < pixels) & (pixels < high)).float().mean() for pixels in (images.float(), changed))
            assert after == pytest.approx(before.item(), rel=0.25)


def test_ink_stays_inside(images):
    """Little reaches the outermost pixels, so little can have left."""
    changed = augment(images, seeded())
    frame = changed.sum() - changed[:, 1:-1, 1:-1].sum()
    assert frame / changed.sum() < 0.005


def test_a_seed_repeats_and_another_does_not(images):
    assert torch.equal(augment(images, seeded()), augment(images, seeded()))
    assert not torch.equal(augment(images, seeded()), augment(images, seeded(1)))


def test_each_image_is_changed_in_its_own_way(images):
    changed = augment(images[:1].expand(50, -1, -1), seeded())
    assert len({image.numpy().tobytes() for image in changed}) == 50


def test_nothing_to_change_changes_nothing(images, only):
    only(None, 0)
    torch.testing.assert_close(augment(images), images.float(), atol=0.01, rtol=0)


def test_shift_moves_by_at_most_two_deviations(images, only):
    only("SHIFT", 1.0)
    for before, after in zip(centre(images), centre(augment(images, seeded())), strict=True):
        moved = after - before
        assert moved.abs().max() < 2.1
        assert moved.std() > 0.8
        assert moved.mean().abs() < 0.1


def test_scaling_is_about_the_middle_and_each_way_by_itself(images, only):
    only("LOG_SCALE", 0.1)
    before, after = spread(images), spread(augment(images, seeded()))
    rows, columns = ((b / a).log() / 2 for b, a in zip(before, after, strict=True))
    for factors in (rows, columns):
        assert factors.std() == pytest.approx(0.088, abs=0.03)  # a normal of 0.1 cut off at two deviations
        assert factors.abs().max() < 0.35  # 0.2, and what interpolation widens a thin stroke by
    assert torch.corrcoef(torch.stack([rows, columns]))[0, 1].abs() < 0.1


def test_rotation_keeps_the_spread_as_a_whole(images, only):
    only("ROTATION", 0.3)
    changed = augment(images, seeded())
    before, after = sum(spread(images)), sum(spread(changed))
    torch.testing.assert_close(after, before, atol=1.5, rtol=0.03)
    assert (changed - images).abs().mean() > 5


def test_strength_scales_every_change(images):
    torch.testing.assert_close(augment(images, strength=0), images.float(), atol=0.01, rtol=0)
    light, full = ((augment(images, seeded(), strength=s) - images).abs().mean() for s in (0.25, 1.0))
    assert 0 < light < full / 2


def test_bending_moves_parts_of_an_image_apart(images, only):
    """Each corner's ink goes its own way, yet no knot further than two deviations."""
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
