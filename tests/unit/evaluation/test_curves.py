"""Curves against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn

from pathpipe.evaluation.curves import precision_recall, reliability, roc


def _case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = np.r_[True, False, rng.random(30) < 0.4]
    return positive, np.round(rng.random(32) * 0.6 + 0.3 * positive, 1)


@pytest.mark.parametrize("seed", range(6))
def test_roc(seed: int) -> None:
    positive, score = _case(seed)
    curve = roc(positive, score)
    false, true, _ = sklearn.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(curve.x, false, atol=1e-12)
    np.testing.assert_allclose(curve.y, true, atol=1e-12)
    assert sklearn.auc(curve.x, curve.y) == pytest.approx(sklearn.roc_auc_score(positive, score))


@pytest.mark.parametrize("seed", range(6))
def test_precision_recall(seed: int) -> None:
    positive, score = _case(seed)
    curve = precision_recall(positive, score)
    precision, recall, _ = sklearn.precision_recall_curve(positive, score)
    np.testing.assert_allclose(curve.x, recall[::-1], atol=1e-12)
    np.testing.assert_allclose(curve.y[1:], precision[::-1][1:], atol=1e-12)
    # the point at recall 0 repeats the first real one in place of an invented precision of 1
    assert curve.y[0] == curve.y[1]
    steps = np.sum(np.diff(curve.x) * np.asarray(curve.y[1:]))
    assert steps == pytest.approx(sklearn.average_precision_score(positive, score))


def test_reliability_by_hand() -> None:
    score = np.array([0.9, 0.1, 0.4, 0.2, 0.8, 0.5])
    positive = np.array([True, False, False, True, True, False])
    curve = reliability(positive, score, bins=3)
    np.testing.assert_allclose(curve.x, [0.15, 0.45, 0.85])
    assert curve.y == [0.5, 0.0, 1.0]
    assert curve.count == [2, 2, 2]


def test_reliability_of_few_patients_has_no_empty_bin() -> None:
    curve = reliability(np.array([True, False]), np.array([0.7, 0.2]), bins=5)
    assert curve.count == [1, 1] and curve.x == [0.2, 0.7] and curve.y == [0.0, 1.0]
