"""The table of predictions: the same bits back, means over seeds, and refusals that say where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pathpipe.errors import StoreError
from pathpipe.evaluation.predictions import Predictions

CLASSES = ("low", "mid", "high")


def _predictions(fold: int = 0, seed: int = 0, role: str = "test", patients: int = 4) -> Predictions:
    rng = np.random.default_rng([fold, seed, patients, len(role)])
    logits = rng.normal(size=(patients, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = [f"P{fold}{index}" for index in range(patients)]
    targets = [CLASSES[index % 3] for index in range(patients)]
    return Predictions.of(CLASSES, names, targets, logits, probabilities, (fold, seed, role))


def test_columns_are_as_documented() -> None:
    assert list(_predictions().table.columns) == [
        *("patient_id", "fold", "seed", "role", "target"),
        *("p_low", "p_mid", "p_high", "logit_low", "logit_mid", "logit_high"),
    ]


@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1)), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_floats_come_back_to_the_same_bits(tmp_path: Path, rows: list[tuple[float, float]]) -> None:
    logits = np.array([[-logit, logit] for logit, _ in rows])
    probabilities = np.array([[1 - p, p] for _, p in rows])
    names = [str(number) for number in range(len(rows))]
    before = Predictions.of(("a", "b"), names, ["a"] * len(rows), logits, probabilities, (3, 1, "val"))
    before.write(tmp_path / "p.csv")
    after = Predictions.read(tmp_path / "p.csv")
    assert after.classes == ("a", "b")
    for name in ("p_a", "p_b", "logit_a", "logit_b"):
        old, new = (one.table[name].to_numpy(np.float64) for one in (before, after))
        np.testing.assert_array_equal(old.view(np.int64), new.view(np.int64))
    pd.testing.assert_frame_equal(before.table, after.table, check_dtype=False)


def test_names_that_look_like_something_else_stay_text(tmp_path: Path) -> None:
    logits = np.zeros((2, 2))
    before = Predictions.of(("0", "NA"), ["007", "nan"], ["NA", "0"], logits, logits + 0.5, (0, 0, "test"))
    before.write(tmp_path / "p.csv")
    after = Predictions.read(tmp_path / "p.csv")
    assert after.classes == ("0", "NA")
    assert after.pooled("test").patients == ("007", "nan")
    assert after.pooled("test").targets.tolist() == [1, 0]


def test_pool_is_the_mean_over_seeds_in_order_of_fold_and_patient() -> None:
    parts = [_predictions(fold, seed, "test") for fold in (1, 0) for seed in (0, 1, 2)]
    pool = Predictions.concatenate([*parts, _predictions(0, 0, "val", 2)]).pooled("test")
    assert pool.folds.tolist() == [0] * 4 + [1] * 4
    assert pool.patients == tuple(f"P{fold}{index}" for fold in (0, 1) for index in range(4))
    assert pool.targets.tolist() == [0, 1, 2, 0] * 2
    columns = ["p_low", "p_mid", "p_high"]
    for fold, rows in ((0, slice(0, 4)), (1, slice(4, 8))):
        expected = np.mean([_predictions(fold, seed, "test").table[columns].to_numpy() for seed in (0, 1, 2)], axis=0)
        np.testing.assert_allclose(pool.probabilities[rows], expected, atol=1e-15)
    np.testing.assert_allclose(pool.probabilities.sum(axis=1), 1, atol=1e-12)


def test_roles_are_kept_apart() -> None:
    both = Predictions.concatenate([_predictions(0, 0, "val", 2), _predictions(0, 0, "test", 5)])
    assert len(both.pooled("val").patients) == 2
    assert len(both.pooled("test").patients) == 5


def test_take_keeps_all_columns_in_step() -> None:
    pool = _predictions(patients=5).pooled("test")
    part = pool.take(np.array([True, False, False, True, True]))
    assert part.patients == ("P00", "P03", "P04")
    assert part.targets.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(part.probabilities, pool.probabilities[[0, 3, 4]])


def test_different_classes_do_not_mix() -> None:
    other = Predictions.of(("a", "b"), ["P"], ["a"], np.zeros((1, 2)), np.full((1, 2), 0.5), (0, 0, "test"))
    with pytest.raises(StoreError, match="different classes"):
        Predictions.concatenate([_predictions(), other])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("p_mid", "x", "row 3: p_mid `x` is no number"),
        ("logit_low", "inf", "row 3: a probability or logit isn't finite"),
        ("p_low", "", "row 3: p_low `` is no number"),
        ("p_low", "0.99", "row 3: the probabilities aren't shares of 1"),
        ("fold", "one", "row 3: fold `one` is no whole number"),
        ("seed", "0.5", "row 3: seed `0.5` is no whole number"),
        ("role", "train", "row 3: role `train` is none of val, test"),
        ("target", "huge", "row 3: target `huge` is none of low, mid, high"),
        ("patient_id", "P00", "row 3: patient P00 stands twice"),
    ],
)
def test_refuses_a_bad_cell(tmp_path: Path, column: str, value: str, message: str) -> None:
    table = _predictions().table.astype(str)
    table.loc[1, column] = value
    table.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(StoreError) as caught:
        Predictions.read(tmp_path / "p.csv")
    assert caught.value.what == message
    assert caught.value.where == str(tmp_path / "p.csv")


def test_refuses_a_patient_with_two_targets(tmp_path: Path) -> None:
    table = Predictions.concatenate([_predictions(seed=0), _predictions(seed=1)]).table
    table.loc[4, "target"] = "high"
    table.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(StoreError, match="patient P00 has more than one target"):
        Predictions.read(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't be read as predictions"),
        (b"patient_id,fold,seed,role,target\nP,0,0,test,a\n", "lacks p_<class> columns"),
        (b"patient_id,fold,role,target,p_a,p_b,logit_a\nP,0,test,a,1,0,2\n", "lacks seed, logit_b"),
        (b"\xff\xfe\x00junk", "can't be read as predictions"),
        (b'a,b\n"1,2\n', "can't be read as predictions"),
    ],
)
def test_refuses_what_is_no_table_of_predictions(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(StoreError, match=message):
        Predictions.read(tmp_path / "p.csv")


def test_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be read as predictions"):
        Predictions.read(tmp_path / "none.csv")
