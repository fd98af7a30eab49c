"""Classes that are not the ten digits: the networks, the style augmentation, and rare classes."""

from __future__ import annotations

import pytest
import torch

from training.augment.affine import augment
from training.data.classes import are_digits, digits_of
from training.loop.batches import balanced_order
from training.networks import NETWORKS, build, classes_of, normalize


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("classes", [2, 1000])
def test_network_has_an_output_for_each_class(name, classes):
    network = build(name, classes).eval()
    assert network(normalize(torch.zeros(2, 28, 28))).shape == (2, classes)
    assert classes_of(network.state_dict()) == classes


def test_only_digits_are_digits():
    assert are_digits("37")
    assert digits_of("37", torch.tensor([1, 0])).tolist() == [7, 3]
    for other in (("A", "1"), ("10", "1"), ("²", "1"), ("", "1")):
        assert not are_digits(other)
        assert digits_of(other, torch.tensor([0, 1])).tolist() == [-1, -1]


@pytest.mark.parametrize(("balance", "rare"), [(0.0, 10), (0.5, 48), (1.0, 100)])
def test_balance_shows_rare_classes_more_often(balance, rare):
    labels = torch.cat([torch.zeros(190), torch.ones(10)]).long()
    order = balanced_order(labels, balance, torch.Generator().manual_seed(0))
    assert len(order) == 200
    assert int(labels[order].sum()) == pytest.approx(rare, abs=12)
    # Every image of the rare class is shown, each about equally often.
    assert (order[labels[order] == 1].bincount(minlength=200)[190:] >= rare // 10 - 1).all()


def test_equal_classes_are_not_changed_by_balance():
    labels = torch.arange(40) % 4
    plain, balanced = (balanced_order(labels, b, torch.Generator().manual_seed(1)) for b in (0.0, 0.5))
    assert torch.equal(plain, balanced)


def test_rotation_can_be_forbidden_and_mirroring_allowed():
    bar = torch.zeros(64, 28, 28)
    bar[:, 4:24, 4:7] = 255  # upright, at the left
    generator = torch.Generator().manual_seed(0)
    sides = augment(bar, generator, strength=0, mirror="horizontal").argmax(dim=2)[:, 14]
    assert set(sides.tolist()) == {4, 21}
    assert torch.equal(augment(bar, generator, strength=0, mirror="vertical"), bar)

    def tilt(rotation):
        """How far apart the tops and the bottoms of the bars are, beyond what shear alone does."""
        turned = augment(bar, torch.Generator().manual_seed(2), rotation=rotation)
        columns = torch.arange(28.0)
        top, bottom = ((turned[:, row] * columns).sum(1) / turned[:, row].sum(1).clamp(min=1) for row in (8, 19))
        return float((top - bottom).abs().mean())

    assert tilt(0) < tilt(40)
