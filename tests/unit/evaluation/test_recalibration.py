"""Temperature and Platt scaling: statsmodels, scikit-learn, a grid, and validation patients that teach nothing."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from pathpipe.evaluation.recalibration import Platt, Temperature


def _case(seed: int, classes: int, patients: int = 80, factor: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Targets drawn from the softmax of logits, and those logits times `factor`: its temperature is about `factor`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (patients, classes))
    targets = np.array([rng.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return targets.astype(np.int64), logits * factor


class _Given(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose decision is its only feature."""

    classes_ = np.array([0, 1])

    def fit(self, x: np.ndarray, y: np.ndarray) -> _Given:
        self.fitted_ = True
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return (x[:, 0] > 0).astype(int)

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x[:, 0]


@pytest.mark.parametrize("seed", range(4))
def test_binary_temperature_is_a_logistic_slope(seed: int) -> None:
    targets, logits = _case(seed, 2)
    slope = sm.Logit(targets, logits[:, 1] - logits[:, 0]).fit(disp=0, tol=1e-12).params[0]
    assert 1 / Temperature.fit(targets, logits).value == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_no_temperature_of_a_fine_grid_is_likelier(seed: int) -> None:
    targets, logits = _case(seed, 4)
    found = Temperature.fit(targets, logits)
    assert found.note is None and 1.5 < found.value < 6

    def loss(temperature: float) -> float:
        return float(-log_softmax(logits / temperature, axis=1)[np.arange(80), targets].mean())

    grid = np.exp(np.linspace(-2, 4, 4001))
    assert loss(found.value) <= min(map(loss, grid)) + 1e-12
    assert found.value == pytest.approx(grid[np.argmin([loss(t) for t in grid])], rel=2e-3)


def test_temperature_keeps_the_order_of_classes() -> None:
    targets, logits = _case(1, 3)
    probabilities = Temperature.fit(targets, logits).apply(logits)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), logits.argmax(axis=1))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities.max() < softmax(logits, axis=1).max()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shift", [0.0, 40.0])
def test_platt_equals_scikit_learn(seed: int, shift: float) -> None:
    targets, logits = _case(seed, 2)
    logits[:, 1] += shift
    odds = (logits[:, 1] - logits[:, 0])[:, None]
    theirs = CalibratedClassifierCV(FrozenEstimator(_Given().fit(odds, targets)), method="sigmoid", ensemble=False)
    expected = theirs.fit(odds, targets).predict_proba(odds)
    np.testing.assert_allclose(Platt.fit(targets, logits).apply(logits), expected, atol=2e-5)


def test_platt_is_the_top_of_its_likelihood() -> None:
    targets, logits = _case(5, 2)
    found = Platt.fit(targets, logits)
    many, few = targets.sum(), (1 - targets).sum()
    soft = np.where(targets == 1, (many + 1) / (many + 2), 1 / (few + 2))
    off = found.apply(logits)[:, 1] - soft
    assert off.sum() == pytest.approx(0, abs=1e-6)
    assert (off * (logits[:, 1] - logits[:, 0])).sum() == pytest.approx(0, abs=1e-5)


def test_platt_of_separated_classes_is_finite() -> None:
    logits = np.stack([np.zeros(6), np.array([-30.0, -20, -10, 10, 20, 30])], axis=1)
    found = Platt.fit(np.array([0, 0, 0, 1, 1, 1]), logits)
    assert np.isfinite([found.slope, found.intercept]).all()
    assert 0.6 < found.apply(logits)[3:, 1].min() < found.apply(logits)[5, 1] < 0.9


def test_validation_patients_that_teach_nothing() -> None:
    _, logits = _case(0, 2)
    one = np.zeros(80, np.int64)
    for method in (Temperature, Platt):
        found = method.fit(one, logits)
        assert found.note == "the validation patients are of one class"
        np.testing.assert_allclose(found.apply(logits), softmax(logits, axis=1), atol=1e-12)
    flat, both = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    temperature, platt = Temperature.fit(both, flat), Platt.fit(both, flat)
    assert np.isnan(temperature.value) and temperature.note is not None
    assert np.isnan(platt.slope) and platt.note is not None
    right = Temperature.fit(both, np.array([[3.0, 0], [0, 3], [3, 0], [0, 3]]))
    assert right.note is not None and "colder" in right.note and np.isnan(right.value)
    wrong = Temperature.fit(both, np.array([[0.0, 3], [3, 0], [0, 3], [3, 0]]))
    assert wrong.note is not None and "hotter" in wrong.note and np.isnan(wrong.value)


def test_refuses_shapes() -> None:
    with pytest.raises(ValueError, match="for two classes, not 3"):
        Platt.fit(np.array([0, 1]), np.zeros((2, 3)))
    for bad, why in (
        (np.zeros(2), "patients, classes"),
        (np.full((2, 2), np.nan), "finite"),
        (np.zeros((3, 2)), "row"),
    ):
        with pytest.raises(ValueError, match=why):
            Temperature.fit(np.array([0, 1]), bad)
    with pytest.raises(ValueError, match="classes 0 to 1"):
        Temperature.fit(np.array([0, 2]), np.zeros((2, 2)))
