"""Comparing models: the numbers are those of the tests themselves, and equal models don't differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pathpipe.errors import StoreError
from pathpipe.evaluation.arrays import mid_ranks
from pathpipe.evaluation.bootstrap import Interval, draw_weights
from pathpipe.evaluation.comparison.compare import _judged, compare
from pathpipe.evaluation.comparison.comparison import Comparison, PairDifference
from pathpipe.evaluation.comparison.delong import DeLong
from pathpipe.evaluation.comparison.matching import Entrant
from pathpipe.evaluation.comparison.paired import bootstrap_difference, permutation_test
from pathpipe.evaluation.comparison.significance import corrected_t_test, holm
from pathpipe.evaluation.metrics import auroc
from pathpipe.evaluation.predictions import Predictions
from pathpipe.evaluation.survival.measures import Horizon
from pathpipe.settings import EvaluateSettings

SETTINGS = EvaluateSettings(bootstrap=200)
TRAINED_ON = {0: 40, 1: 40, 2: 40}
FOLDS = range(3)
EACH = 20


def _frame(fold: int) -> tuple[list[str], np.random.Generator]:
    return [f"P{fold}-{at:02d}" for at in range(EACH)], np.random.default_rng(fold)


def classes(name: str, seed: int, strength: float, count: int = 2) -> Entrant:
    parts = []
    for fold in FOLDS:
        patients, truth = _frame(fold)
        targets = truth.integers(0, count, EACH)
        noise = np.random.default_rng([seed, fold])
        for role in ("val", "test"):
            logits = noise.normal(size=(EACH, count)) + strength * np.eye(count)[targets]
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            labels = ["abc"[target] for target in targets]
            who = patients if role == "test" else [f"V{patient}" for patient in patients]
            parts.append(Predictions.of("abc"[:count], who, labels, logits, probabilities, (fold, 0, role)))
    return Entrant(name, Predictions.concatenate(parts), TRAINED_ON)


def grades(name: str, seed: int, strength: float) -> Entrant:
    one = classes(name, seed, strength, 3)
    return Entrant(name, Predictions(one.predictions.classes, one.predictions.table, "ordinal"), TRAINED_ON)


def numbers(name: str, seed: int, strength: float) -> Entrant:
    parts = []
    for fold in FOLDS:
        patients, truth = _frame(fold)
        target = truth.normal(size=EACH)
        said = target + np.random.default_rng([seed, fold]).normal(size=EACH) / (strength + 0.1)
        columns = {"target": target, "prediction": said}
        parts.append(Predictions.of_columns("regression", patients, columns, (fold, 0, "test")))
    return Entrant(name, Predictions.concatenate(parts), TRAINED_ON)


def times(name: str, seed: int, strength: float) -> Entrant:
    parts = []
    for fold in FOLDS:
        patients, truth = _frame(fold)
        hidden = truth.normal(size=EACH)
        time, event = truth.exponential(np.exp(-2 * hidden)), (truth.random(EACH) < 0.85).astype(int)
        risk = strength * hidden + np.random.default_rng([seed, fold]).normal(size=EACH)
        chances = {f"survival_{t:g}": np.exp(-t * np.exp(np.clip(risk, -3, 3))) for t in (0.3, 0.8)}
        columns = {"time": time, "event": event, "risk": risk, **chances}
        parts.append(Predictions.of_columns("survival", patients, columns, (fold, 0, "test")))
    predictions = Predictions.concatenate(parts)
    table = predictions.table
    horizon = Horizon.of(table["time"].to_numpy(), table["event"].to_numpy() == 1, [])
    return Entrant(name, predictions, TRAINED_ON, horizon)


KINDS: list[Callable[[str, int, float], Entrant]] = [classes, grades, numbers, times]
FIRST = {"classes": "AUROC", "grades": "quadratic kappa", "numbers": "MAE", "times": "C-index (Harrell, within folds)"}


def _by_metric(found: Comparison, metric: str) -> list[PairDifference]:
    return [one for one in found.differences if one.metric == metric]


def test_numbers_of_two_classes_are_those_of_the_tests() -> None:
    entrants = [classes("a", 1, 2.0), classes("b", 2, 0.5), classes("c", 3, 0.0)]
    found = compare("subtype", entrants, SETTINGS)
    pools = [one.predictions.pooled("test") for one in entrants]
    targets, scores = pools[0].targets, np.stack([pool.probabilities[:, 1] for pool in pools])
    delong = DeLong.of(targets, scores)
    weights = draw_weights(targets, 200, 0)
    p = []
    for one, (i, j) in zip(_by_metric(found, "AUROC"), combinations(range(3), 2), strict=True):
        expected = roc_auc_score(targets, scores[i]) - roc_auc_score(targets, scores[j])
        assert (one.first, one.second) == ("abc"[i], "abc"[j]) and one.difference.value == pytest.approx(expected)
        assert one.delong is not None and one.delong.p == pytest.approx(delong.difference(i, j).p)
        drawn = bootstrap_difference(
            partial(auroc, targets, pools[i].probabilities),
            partial(auroc, targets, pools[j].probabilities),
            weights,
            0.95,
            method="bca",
            strata=targets,
        )
        assert one.difference == drawn.interval and one.p_bootstrap == drawn.p
        ranked = np.r_[mid_ranks(scores[i]), mid_ranks(scores[j])]
        both = np.stack([-ranked, ranked], axis=1)
        twice = np.r_[targets, targets]
        exchanged = permutation_test(partial(auroc, twice, both), len(targets), 200, 0)
        assert one.p_permutation == exchanged.p
        p.append(exchanged.p)
        rows = [pools[0].folds == fold for fold in FOLDS]
        by_fold = [[roc_auc_score(targets[r], scores[k][r]) for r in rows] for k in (i, j)]
        test = corrected_t_test(np.array(by_fold[0]) - np.array(by_fold[1]), EACH / 40)
        assert one.across_folds is not None and one.across_folds.p == pytest.approx(test.p)
        assert one.across_folds.difference == pytest.approx(test.difference)
    assert [one.p_holm for one in _by_metric(found, "AUROC")] == pytest.approx(list(holm(np.array(p))))
    assert found.all_equal_p == pytest.approx(delong.all_equal()[2])
    assert found.patients == {"a": int((targets == 0).sum()), "b": int((targets == 1).sum())}
    others = [one for one in found.differences if one.metric != "AUROC"]
    expected_p = holm(np.array([one.p_permutation for one in others]))
    assert [one.p_holm for one in others] == pytest.approx(list(expected_p)), "a family of their own"


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_good_model_beats_a_bad_one_whatever_the_kind_and_the_order(make: Callable[..., Entrant]) -> None:
    good, bad = make("good", 1, 4.0), make("bad", 2, 0.0)
    for pair in ((good, bad), (bad, good)):
        found = compare("x", pair, SETTINGS)
        first = found.differences[0]
        assert first.metric == FIRST[make.__name__]
        assert first.better == "good" and first.verdict == "good is better" and first.p_holm < 0.05
        assert {one.better for one in found.differences} <= {"good", None}
    again = compare("x", (bad, good), SETTINGS)
    assert again == found, "deterministic"
    assert Comparison.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))).to_dict() == found.to_dict()


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_equal_predictions_have_no_difference(make: Callable[..., Entrant]) -> None:
    one, same = make("one", 1, 1.0), make("same", 1, 1.0)
    for found in compare("x", (one, same), SETTINGS).differences:
        assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
        assert (found.p_permutation, found.p_bootstrap, found.p_holm) == (1, 1, 1)
        assert found.better is None and found.verdict == "no difference shown"
        if found.delong is not None:
            assert np.isnan(found.delong.p) and "no variance" in (found.delong.note or "")
        assert found.across_folds is not None and found.across_folds.note == "the difference is the same in all folds"


def test_only_common_patients_are_compared() -> None:
    one, two = classes("one", 1, 1.0), classes("two", 2, 1.0)
    table = two.predictions.table
    fewer = Entrant("two", Predictions(("a", "b"), table[~table["patient_id"].isin(["P0-03", "P2-11"])]), TRAINED_ON)
    found = compare("x", (one, fewer), SETTINGS)
    assert sum(found.patients.values()) == 58
    assert [model.patients for model in found.models] == [60, 58]
    assert found.notes == ("2 of 60 patients of one are left out: another model didn't test them",)
    kept = one.predictions.table[~one.predictions.table["patient_id"].isin(["P0-03", "P2-11"])]
    assert (
        found.differences
        == compare("x", (Entrant("one", Predictions(("a", "b"), kept), TRAINED_ON), fewer), SETTINGS).differences
    )


@pytest.mark.parametrize("make", [classes, times])
def test_other_folds(make: Callable[..., Entrant]) -> None:
    one, two = make("one", 1, 2.0), make("two", 2, 0.0)
    table = two.predictions.table
    number = table["patient_id"].str[-2:].astype(int)
    moved = Predictions(two.predictions.classes, table.assign(fold=number % 3), two.predictions.kind)
    found = compare("x", (one, Entrant("two", moved, TRAINED_ON, two.horizon)), SETTINGS)
    assert found.notes[0] == "the models' folds differ, so there is no test across folds"
    assert all(one.across_folds is None for one in found.differences)
    if make is times:
        assert found.notes[1] == "only patients who share a fold in all models are compared within folds"
        test = one.predictions.table
        joint = pd.concat([test["fold"], number % 3], axis=1).apply(tuple, axis=1)
        rows = test[["time", "event", "risk"]].to_numpy()
        won = pairs = 0
        for i, j in combinations(range(len(rows)), 2):
            first, second = (i, j) if rows[i, 0] < rows[j, 0] else (j, i)
            if joint[i] == joint[j] and rows[first, 1]:
                pairs += 1
                won += rows[first, 2] > rows[second, 2]
        assert found.models[0].metrics["C-index (Harrell, within folds)"].value == pytest.approx(won / pairs)


def test_a_fold_that_lacks_a_class_has_no_say_across_folds() -> None:
    one, two = classes("one", 1, 2.0), classes("two", 2, 0.0)
    for entrant in (one, two):
        table = entrant.predictions.table
        drop = (table["fold"] == 1) & (table["target"] == "b") & (table["role"] == "test")
        object.__setattr__(entrant, "predictions", Predictions(("a", "b"), table[~drop]))
    found = compare("x", (one, two), SETTINGS).differences[0]
    assert found.across_folds is not None
    assert found.across_folds.note == "1 of 3 folds have no value" and found.across_folds.freedom == 1
    assert np.isfinite(found.p_permutation)


def test_a_class_that_nobody_is() -> None:
    one, two = classes("one", 1, 2.0), classes("two", 2, 0.0)
    for entrant in (one, two):
        table = entrant.predictions.table
        object.__setattr__(entrant, "predictions", Predictions(("a", "b"), table[table["target"] == "a"]))
    found = compare("x", (one, two), SETTINGS)
    assert found.differences[0].verdict == "undefined: a class is absent" and found.differences[0].better is None
    assert np.isnan(found.differences[0].p_holm) and np.isfinite(_by_metric(found, "Brier score")[0].p_holm)


def test_all_censored() -> None:
    one, two = times("one", 1, 2.0), times("two", 2, 0.0)
    for entrant in (one, two):
        entrant.predictions.table["event"] = 0
    found = compare("x", (one, two), SETTINGS)
    assert found.differences[0].verdict == "undefined: all patients are censored"


def test_survival_at_other_times_is_not_compared() -> None:
    one, two = times("one", 1, 2.0), times("two", 2, 0.0)
    table = two.predictions.table.rename(columns={"survival_0.8": "survival_0.9"})
    found = compare("x", (one, Entrant("two", Predictions((), table, "survival"), TRAINED_ON, two.horizon)), SETTINGS)
    assert found.notes == ("survival is predicted at different times by one, two, so it isn't compared",)
    assert not _by_metric(found, "integrated Brier score") and _by_metric(found, "C-index (Uno, within folds)")


def test_patients_tested_in_several_folds() -> None:
    def again(entrant: Entrant) -> Entrant:
        table = entrant.predictions.table
        more = table[table["role"] == "test"].assign(fold=lambda rows: (rows["fold"] + 1) % 3)
        return Entrant(entrant.name, Predictions(("a", "b"), pd.concat([table, more], ignore_index=True)), TRAINED_ON)

    found = compare("x", [again(classes("one", 1, 2.0)), again(classes("two", 2, 0.0))], SETTINGS)
    assert found.notes == ("patients are tested in several folds, so there is no test across folds",)


def test_refusals() -> None:
    one = classes("one", 1, 1.0)
    with pytest.raises(StoreError, match="one predicts classification, two regression"):
        compare("x", (one, numbers("two", 2, 1.0)), SETTINGS)
    with pytest.raises(StoreError, match="one knows the classes a, b, two a, b, c"):
        compare("x", (one, classes("two", 2, 1.0, 3)), SETTINGS)
    with pytest.raises(StoreError, match="names of their own"):
        compare("x", (one, classes("one", 2, 1.0)), SETTINGS)
    other = classes("two", 2, 1.0)
    rows = other.predictions.table["patient_id"] == "P1-04"
    truth = other.predictions.table.loc[rows, "target"].iloc[0]
    other.predictions.table.loc[rows, "target"] = "ab".replace(truth, "")
    with pytest.raises(StoreError, match=f"patient P1-04 is `{truth}` for one and `{'ab'.replace(truth, '')}` for two"):
        compare("x", (one, other), SETTINGS)
    other.predictions.table["patient_id"] += "x"
    with pytest.raises(StoreError, match="one, two: have no test patient in common"):
        compare("x", (one, other), SETTINGS)


def test_a_p_at_the_level_is_not_below_it() -> None:
    difference = Interval(0.1, -0.01, 0.2, 100)
    nan = float("nan")
    pair = PairDifference("A", "B", "AUROC", True, difference, nan, 0.05, nan, None, None, None, "")
    assert _judged(pair, 0.05, 1 - 0.95).verdict == "no difference shown"  # 1 - 0.95 is a little more than 0.05
    assert _judged(pair, 0.0499, 1 - 0.95).verdict == "A is better"
