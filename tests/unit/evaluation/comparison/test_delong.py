"""DeLong's test: placements by a loop, scikit-learn's areas, ties, and data without variance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2, norm
from sklearn.metrics import roc_auc_score

from pathpipe.evaluation.bootstrap import draw_weights
from pathpipe.evaluation.comparison.delong import DeLong
from pathpipe.evaluation.metrics import auroc

# Albumin, total protein, K-G score and whether surgery helped, of 43 patients with ovarian cancer: the example of
# DeLong et al. (1988), as listed in SAS/STAT's user's guide, "Comparing Receiver Operating Characteristic Curves".
OVARIAN = """
3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1 3.8 5.7 5 1 3.7 6.7 6 1
3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 4.2 7.6 4 0 4.0 6.6 6 0 3.5 5.8 6 1
3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 4.3 6.5 4 1 3.2 5.1 5 1 2.6 4.7 6 1
3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1
3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1
"""


def test_ovarian_cancer_as_published() -> None:
    albumin, protein, score, helped = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    found = DeLong.of(helped.astype(np.int64), np.stack([-score, protein, albumin]))
    np.testing.assert_allclose(found.areas, [0.7258, 0.6478, 0.7366], atol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance)), [0.1028, 0.1000, 0.0927], atol=5e-5)
    protein_less, albumin_less = found.difference(1, 0), found.difference(2, 0)
    assert (protein_less.value, protein_less.error) == pytest.approx((-0.0780, 0.1046), abs=5e-5)
    assert (protein_less.low, protein_less.high) == pytest.approx((-0.2830, 0.1271), abs=5e-5)
    assert (albumin_less.value, albumin_less.error) == pytest.approx((0.0108, 0.0953), abs=5e-5)
    assert (protein_less.p, albumin_less.p) == pytest.approx((0.4561, 0.9102), abs=5e-5)
    chi_squared, freedom, p = found.all_equal()
    assert (chi_squared, freedom, p) == pytest.approx((2.5340, 2, 0.2817), abs=5e-5)


def _case(seed: int, models: int = 3, patients: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.r_[0, 0, 1, 1, rng.integers(0, 2, patients - 4)]
    shared = rng.normal(targets * 0.8)
    return targets, np.round(np.stack([shared + rng.normal(0, 0.3 + m, patients) for m in range(models)]), 1)


def _placements(targets: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong et al. (1988), eq. 4 and 5: psi averaged over controls, and over cases."""
    psi = np.array([[1.0 if x > y else 0.5 if x == y else 0 for y in score[targets == 0]] for x in score[targets == 1]])
    return psi.mean(axis=1), psi.mean(axis=0)


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_definition(seed: int) -> None:
    targets, scores = _case(seed)
    found = DeLong.of(targets, scores)
    np.testing.assert_allclose(found.areas, [roc_auc_score(targets, s) for s in scores], atol=1e-12)
    pairs = [_placements(targets, s) for s in scores]
    by_case, by_control = np.cov([p[0] for p in pairs]), np.cov([p[1] for p in pairs])
    expected = by_case / (targets == 1).sum() + by_control / (targets == 0).sum()
    np.testing.assert_allclose(found.covariance, expected, atol=1e-14)
    one = found.difference(0, 2, 0.9)
    error = np.sqrt(expected[0, 0] + expected[2, 2] - 2 * expected[0, 2])
    assert one.z == pytest.approx((found.areas[0] - found.areas[2]) / error, abs=1e-10)
    assert one.p == pytest.approx(2 * norm.sf(abs(one.z)), abs=1e-12)
    assert (one.low, one.high) == pytest.approx((one.value - 1.6448536 * error, one.value + 1.6448536 * error))
    contrast = np.array([[1.0, -1, 0], [1, 0, -1]])  # any full set of contrasts gives the same
    apart = contrast @ found.areas
    statistic = apart @ np.linalg.inv(contrast @ expected @ contrast.T) @ apart
    assert found.all_equal() == pytest.approx((statistic, 2, chi2.sf(statistic, 2)), abs=1e-9)


def test_error_agrees_with_the_bootstrap() -> None:
    targets, scores = _case(1, 2, 400)
    weights = draw_weights(targets, 2000, seed=0).astype(float)
    areas = [auroc(targets, np.stack([-s, s], axis=1), weights) for s in scores]
    error = DeLong.of(targets, scores).difference(0, 1).error
    assert error == pytest.approx(np.std(areas[0] - areas[1]), rel=0.08)


def test_by_hand() -> None:
    # cases .8 .4, controls .5 .3: three of four pairs; placements 1 .5 | .5 1: both variances 1/8
    found = DeLong.of(np.array([1, 1, 0, 0]), np.array([[0.8, 0.4, 0.5, 0.3]]))
    assert found.areas[0] == 0.75
    assert found.covariance[0, 0] == pytest.approx(1 / 8 / 2 + 1 / 8 / 2)


def test_what_can_not_be_tested_has_a_reason() -> None:
    targets, scores = _case(0, 2)
    none = DeLong.of(np.ones(40, np.int64), scores)
    assert np.isnan(none.areas).all() and none.difference(0, 1).note == "a class is absent"
    lonely = DeLong.of((np.arange(40) == 3).astype(np.int64), scores)
    assert np.isfinite(lonely.areas).all() and np.isnan(lonely.covariance).all()
    assert np.isnan(lonely.difference(0, 1).p) and "single patient" in (lonely.note or "")
    alike = DeLong.of(targets, np.stack([scores[0], 2 * scores[0] + 1])).difference(0, 1)
    assert alike.value == 0 and np.isnan(alike.p) and alike.note is not None
    constant = DeLong.of(targets, np.stack([np.zeros(40), targets.astype(float)])).difference(1, 0)
    assert constant.value == 0.5 and np.isnan(constant.z) and "no variance" in (constant.note or "")
    assert np.isnan(DeLong.of(targets, scores[:1]).all_equal()[2])
    three = DeLong.of(targets, np.stack([scores[0], scores[0], scores[1]])).all_equal()
    assert three[1] == 1 and np.isfinite(three[2])  # two of the three are one


def test_refuses_shapes() -> None:
    with pytest.raises(ValueError, match="models, patients"):
        DeLong.of(np.array([0, 1]), np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="one row a patient"):
        DeLong.of(np.array([0, 1]), np.zeros((2, 3)))
