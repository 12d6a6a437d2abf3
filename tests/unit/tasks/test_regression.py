"""A number: standardised by the training patients, and given back in its own units."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from pathpipe.errors import CohortError
from pathpipe.settings.target import parse_target
from pathpipe.tasks.regression import RegressionOptions, RegressionTask
from pathpipe.tasks.task import task_from_dict

SPEC = parse_target("age:regression")[0]
TASK = RegressionTask("age:regression", "age")
TRAIN = [("40",), ("",), ("50",), ("60",)]


def test_learns_from_the_labels_it_is_fitted_to_alone() -> None:
    fitted = TASK.fit(TRAIN)
    assert (fitted.mean, fitted.std) == (50, 10)
    assert fitted.fit(TRAIN) == fitted
    np.testing.assert_allclose(fitted.encode([("70",), ("",), ("45",)]), [2, math.nan, -0.5])
    assert fitted.scores(torch.tensor([[1.5]])).item() == 65
    (table,) = fitted.tables(torch.tensor([[1.5], [0.0]]), [("63.5",), ("",)])
    assert (table.kind, table.known) == ("regression", [True, False])
    assert table.columns["target"][0] == 63.5 and list(table.columns["prediction"]) == [65, 50]
    assert fitted.question() == TASK.question() and task_from_dict(fitted.to_dict()) == fitted


@pytest.mark.parametrize("labels", [[("50",), ("50",)], [("",)]])
def test_nothing_to_learn(labels: list[tuple[str]]) -> None:
    with pytest.raises(CohortError, match=r"column `age`: the training patients have (the one value 50|no value)"):
        TASK.fit(labels)


def test_a_cohort_of_one_value_is_refused_before_any_fold() -> None:
    with pytest.raises(CohortError, match="column `age`: says the same of every patient"):
        RegressionTask.build(SPEC, {"P1": ("50",), "P2": ("50.0",), "P3": ("",)}, RegressionOptions())


@pytest.mark.parametrize("text", ["old", "nan", "inf"])
def test_names_the_patient_whose_text_is_no_number(text: str) -> None:
    with pytest.raises(CohortError, match=f"column `age`: `{text}` of patient P2 is no number"):
        RegressionTask.build(SPEC, {"P1": ("50",), "P2": (text,)}, RegressionOptions())


def test_losses() -> None:
    logits = torch.tensor([[0.5], [3.0], [9.0]], requires_grad=True)
    targets = torch.tensor([0.0, 0.0, math.nan])
    huber = TASK.loss(logits, targets, None)
    assert huber.item() == pytest.approx((0.5 * 0.25 + (3 - 0.5)) / 2)
    mse = RegressionTask.build(SPEC, {"P": ("1",), "Q": ("2",)}, RegressionOptions(loss="mse")).loss(
        logits, targets, None
    )
    assert mse.item() == pytest.approx((0.25 + 9) / 2)
    (huber + mse).backward()
    assert logits.grad is not None and logits.grad[2] == 0
    wide = RegressionTask("age:regression", "age", delta=4.0)
    assert wide.loss(logits, targets, None).item() == pytest.approx(mse.item() / 2)


def test_r_squared() -> None:
    logits, targets = torch.randn(30, 1), torch.randn(30)
    assert TASK.metrics(logits, targets)["r2"] == pytest.approx(r2_score(targets.double(), logits[:, 0].double()))
    assert math.isnan(TASK.metrics(logits, torch.ones(30))["r2"])
