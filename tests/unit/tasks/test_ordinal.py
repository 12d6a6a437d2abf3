"""Grades: probabilities that keep their order, against sums written out, and an order that is never guessed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from pathpipe.errors import CohortError
from pathpipe.settings.target import parse_target
from pathpipe.tasks.ordinal import OrdinalOptions, OrdinalTask
from pathpipe.tasks.task import task_from_dict

TASK = OrdinalTask("grade:ordinal", "grade", ("1", "2", "3", "4"))
SPEC = parse_target("grade:ordinal")[0]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_probabilities_are_steps_taken() -> None:
    logits = [0.3, -1.2, 2.0]
    go = [_sigmoid(x) for x in logits]
    expected = [1 - go[0], go[0] * (1 - go[1]), go[0] * go[1] * (1 - go[2]), go[0] * go[1] * go[2]]
    assert TASK.scores(torch.tensor([logits]))[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert TASK.outputs == 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-60, 60), min_size=3, max_size=3))
def test_any_logits_give_consistent_probabilities(logits: list[float]) -> None:
    scores = TASK.scores(torch.tensor([logits], dtype=torch.float64))[0]
    assert (scores >= 0).all() and scores.sum().item() == pytest.approx(1, abs=1e-12)
    above = 1 - scores.cumsum(0)
    assert (above.diff() <= 1e-12).all()


def test_loss_is_the_likelihood_of_the_grade() -> None:
    logits, targets = torch.randn(5, 3), torch.tensor([0, 3, 1, -1, 2])
    scores = TASK.scores(logits)
    each = [-math.log(scores[row, grade]) for row, grade in enumerate(targets.tolist()) if grade >= 0]
    assert TASK.loss(logits, targets, None).item() == pytest.approx(np.mean(each), rel=1e-5)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    weighed = [loss * weight for loss, weight in zip(each, [1, 4, 2, 3], strict=True)]
    assert TASK.loss(logits, targets, weights).item() == pytest.approx(np.mean(weighed), rel=1e-5)


def test_kappa_is_of_the_median_grade() -> None:
    logits, targets = torch.randn(60, 3), torch.randint(0, 4, (60,))
    scores = TASK.scores(logits).numpy()
    median = [int(np.flatnonzero(row.cumsum() >= 0.5)[0]) for row in scores]
    expected = cohen_kappa_score(targets, median, weights="quadratic")
    assert TASK.metrics(logits, targets)["kappa"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("texts", "order"), [(["10", "2", "1"], ("1", "2", "10")), (["G10", "G9", "G1"], ("G1", "G9", "G10"))]
)
def test_natural_order(texts: list[str], order: tuple[str, ...]) -> None:
    labels = {str(at): (text,) for at, text in enumerate(texts)}
    assert OrdinalTask.build(SPEC, labels, OrdinalOptions()).classes == order


def test_an_order_is_never_guessed() -> None:
    labels = {"a": ("low",), "b": ("high",), "c": ("mid",), "d": ("",)}
    with pytest.raises(CohortError, match=r"in which order the grades are: high, low, mid .*order="):
        OrdinalTask.build(SPEC, labels, OrdinalOptions())
    order = ["low", "mid", "high"]
    assert OrdinalTask.build(SPEC, labels, OrdinalOptions(order=order)).classes == tuple(order)
    with pytest.raises(CohortError, match="the order given lacks `mid`"):
        OrdinalTask.build(SPEC, labels, OrdinalOptions(order=["low", "high"]))


def test_table_and_round_trip() -> None:
    logits = torch.randn(2, 3)
    (table,) = TASK.tables(logits, [("4",), ("1",)])
    assert table.kind == "ordinal" and list(table.columns)[:3] == ["target", "p_1", "p_2"]
    logs = np.stack([np.asarray(table.columns[f"logit_{name}"]) for name in TASK.classes], axis=1)
    np.testing.assert_allclose(np.exp(logs), TASK.scores(logits), rtol=1e-12)
    assert task_from_dict(TASK.to_dict()) == TASK
