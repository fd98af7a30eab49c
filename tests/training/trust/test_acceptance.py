"""The acceptance thresholds: how many right predictions they reject, and what they need of a network."""

from __future__ import annotations

import numpy as np
import pytest

from training.trust.acceptance import CLEAN_REJECTIONS, NOVELTY_PART, STYLED_REJECTIONS, Scores, fit_thresholds


def scores(count, seed, spread=1.0, wrong=0.02):
    """Return scores of digits: wrong predictions are less confident and no more novel."""
    random = np.random.default_rng(seed)
    is_right = random.random(count) >= wrong
    confidence = np.where(is_right, 1 - random.random(count) ** (600 / spread), random.uniform(0.3, 0.95, count))
    return Scores(confidence, random.normal(0, spread, count), is_right)


def rejected(found, thresholds):
    """Return the share of right predictions that are rejected, and the share of all that are wrong and accepted."""
    accepted = (found.novelty <= thresholds.novelty) & (found.confidence >= thresholds.confidence)
    return (~accepted)[found.is_right].mean(), (accepted & ~found.is_right).mean()


@pytest.mark.parametrize(("spread", "bound"), [(1.0, "clean"), (3.0, "styled")])
def test_thresholds_use_up_the_first_share_of_right_predictions_that_is_spent(spread, bound):
    clean, styled = scores(20_000, 0), scores(20_000, 1, spread)
    found = fit_thresholds(clean, styled)
    shares = {"clean": (rejected(clean, found)[0], CLEAN_REJECTIONS)}
    shares["styled"] = rejected(styled, found)[0], STYLED_REJECTIONS
    assert all(share <= most for share, most in shares.values())
    share, most = shares[bound]
    assert share == pytest.approx(most, abs=1e-3)
    if bound == "clean":
        assert (clean.novelty > found.novelty)[clean.is_right].mean() == pytest.approx(NOVELTY_PART * most, abs=1e-3)


def test_confidence_threshold_rejects_most_wrong_predictions():
    clean = scores(20_000, 0)
    _, wrong = rejected(clean, fit_thresholds(clean, clean))
    assert wrong < 0.25 * (~clean.is_right).mean()


def test_false_rejections_are_shares_of_all_images():
    clean = Scores(np.array([0.2, 0.9, 0.95, 1.0]), np.array([0.0, 0.0, 3.0, 0.0]), np.array([False, True, True, True]))
    found = fit_thresholds(clean, clean)
    shares = found.false_rejections(clean)
    assert shares == {"novelty": 0.25, "confidence": 0.25}


@pytest.mark.parametrize("right", [0, 1])
def test_network_with_hardly_a_right_prediction_gets_thresholds(right):
    few = Scores(np.full(10, 0.5), np.arange(10.0), np.arange(10) < right)
    found = fit_thresholds(few, few)
    assert np.isfinite(found.novelty)
    assert 0 <= found.confidence <= 1
